"""KVM's SMCCC filter: which rules are taken, and who gets a call."""

from __future__ import annotations

from errno import EBUSY, EEXIST, EINVAL

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.errors import UsageError
from qemu_sdei.smccc import Call, FunctionRange, Registry, Service, Widths
from qemu_sdei.smccc.call_filter import MAX_RULES, RESERVED, Action, CallFilter, Rule, parse, unwise
from qemu_sdei.smccc.regs import X0, Regs, new_regs
from qemu_sdei.smccc.selection import RefusedError
from qemu_sdei.smccc.service import Handler

TRNG = 0x8400_0050


def _refused(made: CallFilter, *words: int, **more: object) -> int:
    with pytest.raises(RefusedError) as refused:
        made.add(*words, **more)  # type: ignore[arg-type]
    return refused.value.errno


class TestRules:
    """As KVM's own cases go over them."""

    def test_pad(self) -> None:
        for at in range(15):
            pad = bytearray(15)
            pad[at] = 1
            assert _refused(CallFilter(), TRNG, 1, 1, pad=bytes(pad)) == EINVAL

    def test_zero_functions(self) -> None:
        assert _refused(CallFilter(), TRNG, 0, 1) == EINVAL

    def test_overflow(self) -> None:
        assert _refused(CallFilter(), 0xFFFF_FFFF, 2, 1) == EINVAL
        assert _refused(CallFilter(), 1, 1 << 32, 1) == EINVAL
        CallFilter().add(0xFFFF_FFFF, 1, 1)

    def test_reserved_action(self) -> None:
        assert _refused(CallFilter(), TRNG, 1, 3) == EINVAL
        assert _refused(CallFilter(), TRNG, 1, -1) == EINVAL

    @pytest.mark.parametrize("base", [rule.first for rule in RESERVED] + [rule.last for rule in RESERVED])
    @pytest.mark.parametrize("action", [0, 1, 2])
    def test_the_architectures_own_calls_are_reserved(self, base: int, action: int) -> None:
        assert _refused(CallFilter(), base, 1, action) == EEXIST

    def test_overlap(self) -> None:
        made = CallFilter()
        made.add(TRNG, 4, 1)
        for base, count in ((TRNG, 1), (TRNG + 3, 1), (TRNG - 1, 2), (TRNG + 3, 9), (TRNG - 9, 99)):
            assert _refused(made, base, count, 2) == EEXIST
        made.add(TRNG - 1, 1, 2)
        made.add(TRNG + 4, 1, 2)

    def test_after_the_guest_has_run(self) -> None:
        assert _refused(CallFilter(), TRNG, 1, 1, has_run=True) == EBUSY

    def test_there_is_an_end(self) -> None:
        made = CallFilter()
        for n in range(MAX_RULES):
            made.add(TRNG + 2 * n, 1, 1)
        assert _refused(made, 0x8500_0000, 1, 1) == EINVAL

    def test_what_is_refused_changes_nothing(self) -> None:
        made = CallFilter(parse(["deny:0x84000050+4"]))
        for words in ((TRNG, 1, 1), (TRNG, 0, 1), (0xC400_0000, 1, 7)):
            _refused(made, *words)
        assert made.rules == (Rule(TRNG, TRNG + 3, Action.DENY),)


@given(st.lists(st.tuples(st.integers(0x8100_0000, 0x8100_0040), st.integers(1, 9), st.sampled_from(Action))))
def test_a_function_is_what_the_first_rule_that_was_taken_says(wanted: list[tuple[int, int, Action]]) -> None:
    made = CallFilter()
    expected: dict[int, Action] = {}
    for base, count, action in wanted:
        numbers = range(base, base + count)
        if any(number in expected for number in numbers):
            assert _refused(made, base, count, action.value) == EEXIST
        else:
            made.add(base, count, action.value)
            expected |= dict.fromkeys(numbers, action)
    for number in range(0x8100_0000 - 1, 0x8100_0060):
        assert made.action(number) is expected.get(number, Action.HANDLE)
    assert parse(map(str, made.rules)) == list(made.rules)
    forwarded = [number for number, action in expected.items() if action is Action.FORWARD]
    for first in range(0x8100_0000, 0x8100_0050, 3):
        assert made.forwards(first, first + 2) is all(number in forwarded for number in range(first, first + 3))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("deny", "write ACTION:FUNCTION"),
        ("refuse:1", "actions are handle, deny, forward"),
        ("deny:x", "write ACTION:FUNCTION"),
        ("deny:1+", "write ACTION:FUNCTION"),
        ("deny:0x80000000", "the architecture's own calls, which are reserved"),
        ("deny:0xffffffff+2", "not within 32 bits"),
        ("deny:-1", "not within 32 bits"),
    ],
)
def test_other_words_are_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("+", r"\+")) as refused:
        parse([text])
    assert "\n" not in str(refused.value)


class Firmwares(Service):
    """Built in: answers 1."""

    ranges = (FunctionRange(4, 0x50, 0x5F),)

    def handlers(self) -> dict[int, Handler]:
        return dict.fromkeys((TRNG, TRNG + 1), self._one)

    def _one(self, pe: int, regs: Regs) -> int:
        return 1


class Users(Service):
    """The user's own: answers 2."""

    ranges = (FunctionRange(4, 0x51, 0x51),)

    def call(self, call: Call) -> int:
        return 2


def _answer(registry: Registry, function: int) -> int | None:
    handler = registry.lookup(function)
    if handler is None:
        return None
    regs = new_regs()
    regs[X0] = function
    found = handler(0, regs)
    assert isinstance(found, int | tuple)
    return found[0] if isinstance(found, tuple) else found


def _registry(*rules: str, users: bool = False) -> Registry:
    registry = Registry(CallFilter(parse(rules)))
    registry.register(Firmwares())
    if users:
        registry.register(Users(), users=True)
    return registry


def test_what_is_denied_is_answered_by_nobody_and_still_there() -> None:
    registry = _registry("deny:0x84000051")
    assert (_answer(registry, TRNG), _answer(registry, TRNG + 1)) == (1, None)
    assert registry.implemented(TRNG + 1), "the filter is about calls: whoever asks for the feature finds it"


def test_what_is_forwarded_is_answered_by_the_users_service_or_by_nobody() -> None:
    rules = ("forward:0x84000051", "forward:0xc4000051")
    assert _answer(_registry(*rules), TRNG + 1) is None
    registry = _registry(*rules, users=True)
    assert (_answer(registry, TRNG), _answer(registry, TRNG + 1), _answer(registry, TRNG + 1 | 1 << 30)) == (1, 2, 2)
    assert isinstance(registry.service_of(TRNG + 1), Users)


class Handling(Users):
    """The user's own, with a handler for its function."""

    ranges = (FunctionRange(4, 0x51, 0x51, Widths.SMC32),)

    def handlers(self) -> dict[int, Handler]:
        return {TRNG + 1: lambda pe, regs: 3}


def test_what_is_forwarded_reaches_a_handler_of_the_users_service() -> None:
    registry = Registry(CallFilter(parse(("forward:0x84000051",))))
    registry.register(Firmwares())
    registry.register(Handling(), users=True)
    assert (_answer(registry, TRNG), _answer(registry, TRNG + 1)) == (1, 3)
    assert TRNG + 1 not in registry.table, "the firmware's own handler is out of the way"


@pytest.mark.parametrize("rules", [(), ("forward:0x84000051",), ("deny:0x84000051", "deny:0xc4000051")])
def test_a_users_service_gets_no_function_of_the_firmwares_that_is_not_forwarded(rules: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="overlaps service"):
        _registry(*rules, users=True)


def test_rules_that_take_psci_from_the_guest_are_known() -> None:
    rules = parse(
        ["deny:0x84000002+2", "forward:0xc4000003", "handle:0x84000000", "deny:0x84000020", "deny:0x84000050"]
    )
    assert unwise(rules) == rules[:2]
