"""KVM's own cases for services and their selection, by a bare-metal guest and its host: by HVC, and by SMC."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.errors import UsageError
from qemu_sdei.guest import machine_control
from qemu_sdei.rundir import find
from qemu_sdei.smccc.call_filter import Action, CallFilter, Rule
from qemu_sdei.smccc.selection import BY_WORD, REGISTERS, RefusedError
from tests.guest.kvm_cases import (
    BITS,
    EVERYTHING,
    FILTERS,
    NOT_SUPPORTED,
    NOTHING,
    PSCI_VERSION,
    Filter,
    cases,
    words,
)

BY_SMC = {register: features if register.startswith("std") else set() for register, features in EVERYTHING.items()}
"""What a guest without a hypervisor can have."""


def _options(append: str, *, hvc: bool, **more: object) -> GuestOptions:
    return GuestOptions(kernel="builtin:bench", append=append, memory="64M", smp=1, hypervisor=hvc, **more)  # type: ignore[arg-type]


def _answers(guest: Guest) -> dict[str, int]:
    """x0 of each case, by its name."""
    guest.expect("services: done", timeout=60)
    found = re.findall(r"services: 0x\w+ 0x\w+ (0x\w+) (.*?)\r?\n", guest.console)
    return {name: int(x0, 16) for x0, name in found}


def _wrong(answers: Mapping[str, int], selected: Mapping[str, set[str]]) -> list[str]:
    """Cases whose answer is not the one that must come."""
    assert len(answers) == len(cases())
    return [
        f"{case.name}: {answers[case.name]:#x}"
        for case in cases()
        if (answers[case.name] != NOT_SUPPORTED) is not case.is_there(selected)
    ]


def _goes_through(selected: Mapping[str, set[str]], *, hvc: bool) -> list[str]:
    chosen = words(selected if hvc else {word: selected[word] for word in ("std", "std-hyp")})
    with Guest(_options("mode=services", hvc=hvc, selection=chosen)) as guest:
        return _wrong(_answers(guest), selected)


def test_the_list_has_each_bit_and_each_name_once() -> None:
    found = cases()
    assert {case.bit for case in found if case.bit} == set(BITS)
    assert max(Counter(case.name for case in found).values()) == 1
    assert len(found) == SOURCE_LINES


SOURCE_LINES = 49
"""Of `guest/bench/services.h`: none is overlooked."""


@pytest.mark.parametrize("case", FILTERS, ids=lambda case: case.name)
def test_a_range_of_the_filter(case: Filter) -> None:
    made = CallFilter([Rule(base, base + count - 1, Action.DENY) for base, count in case.before])
    before = made.rules
    if case.errno is None:
        made.add(case.base, case.count, case.action, case.pad, has_run=case.has_run)
        assert len(made.rules) == len(before) + 1
        return
    with pytest.raises(RefusedError) as refused:
        made.add(case.base, case.count, case.action, case.pad, has_run=case.has_run)
    assert refused.value.errno == case.errno
    assert made.rules == before


@pytest.mark.guest
@pytest.mark.parametrize("hvc", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["hvc", "smc"])
def test_what_is_enabled_is_there_and_false_questions_are_not_supported(runtime: Path, hvc: bool) -> None:
    assert _goes_through(EVERYTHING if hvc else BY_SMC, hvc=hvc) == []


@pytest.mark.guest
@pytest.mark.parametrize("hvc", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["hvc", "smc"])
def test_what_is_disabled_is_not_supported(runtime: Path, hvc: bool) -> None:
    assert _goes_through(NOTHING, hvc=hvc) == []


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "all-but"])
@pytest.mark.parametrize("bit", BITS, ids=lambda bit: bit[1])
def test_each_bit_is_for_its_own_functions(runtime: Path, bit: tuple[str, str], alone: bool) -> None:
    register, feature = bit
    selected = {word: set(features) for word, features in (NOTHING if alone else EVERYTHING).items()}
    selected[register] ^= {feature}
    assert _goes_through(selected, hvc=True) == []


@pytest.mark.guest
def test_registers_before_and_after_the_guest_has_run(runtime: Path) -> None:
    """Reset values, clear and set, a bit that is not supported, and no other value once it runs: on any vCPU."""
    options = GuestOptions(
        kernel="builtin:bench", append="mode=idle", memory="64M", smp=2, hypervisor=True, paused=True, name="registers"
    )
    with Guest(options) as guest, guest.client() as client:
        for register in REGISTERS:
            limit = (1 << len(register.features)) - 1
            assert client.registers(0)[register.id] == [0 if register.starts_empty else limit]
            for value in (0, limit, *(1 << feature.bit for feature in register.features)):
                assert client.registers(0, {register.id: [value]})[register.id] == [value]
                assert client.registers(1)[register.id] == [value], "one value for the machine"
            for beyond in (limit + 1, 1 << 63, (1 << 64) - 1):
                with pytest.raises(UsageError, match="not supported"):
                    client.registers(0, {register.id: [beyond]})
            client.registers(1, {register.id: [limit]})
        for wrong in (0x6030_0000_0016_0004, 0x6020_0000_0016_0000, 0x6040_0000_0016_0000):
            with pytest.raises(UsageError, match="no register"):
                client.registers(0, {wrong: [0]})
        found = find("registers")
        assert machine_control.resume(found.owner, found.identity) == machine_control.RUNNING
        guest.wait_resumed(20)
        guest.expect("idle: ready")
        for register in REGISTERS:
            limit = (1 << len(register.features)) - 1
            assert client.registers(0, {register.id: [limit]})[register.id] == [limit]
            with pytest.raises(UsageError, match="has run already"):
                client.registers(1, {register.id: [0]})
            with pytest.raises(UsageError, match="not supported"):
                client.registers(0, {register.id: [limit + 1]})


SERVICE = """
from qemu_sdei.smccc import FunctionRange, Service, Widths


class Version(Service):
    ranges = (FunctionRange(4, 0, 0, Widths.SMC32),)

    def call(self, call):
        return {"smc": 0x51C, "hvc": 0x48C}[call.conduit]
"""


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.parametrize(
    ("hvc", "conduit", "seen"),
    [(True, "hvc", 0x48C), (True, "smc", 0x51C), (False, "smc", 0x51C)],
    ids=["hvc", "smc-past-EL2", "smc"],
)
def test_a_filtered_call_is_denied_or_forwarded(
    runtime: Path, tmp_path: Path, hvc: bool, conduit: str, seen: int
) -> None:
    """PSCI_VERSION, as KVM's `smccc_filter` has it: by each conduit, which who serves it is told."""
    service = tmp_path / "version.py"
    service.write_text(SERVICE)
    append = f"mode=call function={PSCI_VERSION:#x} conduit={conduit}"
    for rule, services, x0 in (
        (f"deny:{PSCI_VERSION:#x}", [], NOT_SUPPORTED),
        (f"forward:{PSCI_VERSION:#x}", [service], seen),
        (f"handle:{PSCI_VERSION:#x}", [], 0x1_0001),
    ):
        with Guest(_options(append, hvc=hvc, smccc_filter=(rule,), services=services)) as guest:
            assert int(guest.expect(r"call: x0=(0x\w+) ")[1], 16) == x0, rule


def test_bits_are_those_of_the_registers() -> None:
    assert {word for word, _ in BITS} == BY_WORD.keys()
