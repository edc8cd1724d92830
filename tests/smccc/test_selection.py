"""KVM's bitmap registers: what may be written when, and which functions a guest finds by them."""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENOENT

import pytest

from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.smccc.selection import BY_WORD, REGISTERS, RefusedError, Register, Selection, parse

EVERYTHING = frozenset[int]().union(*(feature.functions for each in REGISTERS for feature in each.features))
UPSTREAM = [0x6030_0000_0016_0000 | n for n in range(4)]


def test_ids_are_those_of_kvm() -> None:
    assert [each.id for each in REGISTERS] == UPSTREAM
    assert [each.name for each in REGISTERS] == ["STD_BMAP", "STD_HYP_BMAP", "VENDOR_HYP_BMAP", "VENDOR_HYP_BMAP_2"]


@pytest.mark.parametrize("register", REGISTERS, ids=lambda each: each.name)
class TestEachRegister:
    """As KVM's own cases go over its registers."""

    def test_begins_at_its_limit(self, register: Register) -> None:
        selection = Selection(EVERYTHING.__contains__)
        limit = sum(1 << feature.bit for feature in register.features)
        assert selection.limit(register) == limit
        assert selection.read(register.id) == (0 if register.number == 3 else limit)

    def test_can_be_cleared_and_set_again_before_the_guest_runs(self, register: Register) -> None:
        selection = Selection(EVERYTHING.__contains__)
        limit = selection.limit(register)
        for value in (0, limit, 1, 0):
            selection.write(register.id, value, has_run=False)
            assert selection.read(register.id) == value
            for feature in register.features:
                for function in feature.functions:
                    assert selection.has(function) is bool(value >> feature.bit & 1)

    @pytest.mark.parametrize("has_run", [False, True])
    def test_a_bit_that_is_not_supported_is_einval_whatever_else(self, register: Register, has_run: bool) -> None:
        selection = Selection(EVERYTHING.__contains__)
        before = selection.read(register.id)
        for value in (selection.limit(register) + 1, 1 << 63, (1 << 64) - 1, 1 << 64, -1):
            with pytest.raises(RefusedError) as refused:
                selection.write(register.id, value, has_run=has_run)
            assert refused.value.errno == EINVAL
            assert selection.read(register.id) == before

    def test_only_the_same_value_is_taken_once_the_guest_has_run(self, register: Register) -> None:
        selection = Selection(EVERYTHING.__contains__)
        value = selection.read(register.id)
        assert not selection.write(register.id, value, has_run=True)
        with pytest.raises(RefusedError) as refused:
            selection.write(register.id, value ^ 1, has_run=True)
        assert refused.value.errno == EBUSY
        assert selection.read(register.id) == value

    def test_the_limit_is_what_the_firmware_has(self, register: Register) -> None:
        for feature in register.features:
            selection = Selection(feature.functions.__contains__)
            assert selection.limit(register) == 1 << feature.bit
            assert all(selection.limit(other) == 0 for other in REGISTERS if other is not register)


@pytest.mark.parametrize("number", [0, 0x6030_0000_0016_0004, 0x6020_0000_0016_0000, 0x6030_0000_0014_0000])
def test_a_register_that_is_not_there_is_enoent(number: int) -> None:
    selection = Selection(EVERYTHING.__contains__)
    with pytest.raises(RefusedError) as refused:
        selection.write(number, 0, has_run=False)
    assert refused.value.errno == ENOENT
    with pytest.raises(RefusedError):
        selection.read(number)


def test_functions_without_a_bit_are_always_there() -> None:
    selection = Selection(EVERYTHING.__contains__)
    for register in REGISTERS:
        selection.write(register.id, 0, has_run=False)
    for function in (0x8000_0000, 0x8000_0001, 0x8400_0000, 0xC400_0003, 0xC300_0000):
        assert selection.has(function)
    assert selection.withheld() == EVERYTHING


def test_words_elect_what_they_name() -> None:
    selection = Selection(EVERYTHING.__contains__)
    selection.elect(parse(["std=trng", "vendor-hyp="]))
    assert selection.snapshot() == {"std": 1, "std-hyp": 1, "vendor-hyp": 0, "vendor-hyp-2": 0}
    selection.elect(parse(["std=sdei,trng", "vendor-hyp=ptp"]))
    assert selection.snapshot() == {"std": 3, "std-hyp": 1, "vendor-hyp": 2, "vendor-hyp-2": 0}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["std"], "write REGISTER=FEATURE"),
        (["psci="], "the registers are std, std-hyp, vendor-hyp, vendor-hyp-2"),
        (["std=trng,ptp"], "std has no ptp; it has sdei, trng"),
        (["std=trng", "std=sdei"], "std is there twice"),
    ],
)
def test_other_words_are_refused_with_those_that_there_are(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(words)


def test_what_this_firmware_does_not_have_cannot_be_elected() -> None:
    with pytest.raises(UsageError, match="does not have pv_time"):
        Selection(BY_WORD["std"].features[0].functions.__contains__).elect(parse(["std-hyp=pv_time"]))


@pytest.mark.parametrize(
    "damage",
    [None, [], {}, {"std": 1}, {"std": 3, "std-hyp": 1, "vendor-hyp": 3, "vendor-hyp-2": 4}]
    + [{"std": value, "std-hyp": 1, "vendor-hyp": 3, "vendor-hyp-2": 0} for value in ("3", None, True, -1, 4, 1.0)],
)
def test_damaged_state_is_refused_and_changes_nothing(damage: object) -> None:
    selection = Selection(EVERYTHING.__contains__)
    selection.elect(parse(["std=trng"]))
    before = selection.snapshot()
    with pytest.raises(ProtocolError):
        selection.restore(damage)
    assert selection.snapshot() == before
    selection.restore({"std": 2, "std-hyp": 0, "vendor-hyp": 1, "vendor-hyp-2": 3})
    assert selection.snapshot() == {"std": 2, "std-hyp": 0, "vendor-hyp": 1, "vendor-hyp-2": 3}
