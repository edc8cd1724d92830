"""Function ids find their service, and nothing else."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.errors import UsageError
from qemu_sdei.smccc import Call, FunctionRange, Handler, JournalMode, Owner, Registry, Service, Widths
from qemu_sdei.smccc.ids import FUNCTION_MASK, function_id, number_of, owner_of, width_of
from qemu_sdei.smccc.regs import X0, Regs, new_regs

WORD = (1 << 64) - 1


class Hot(Service):
    """A built-in service with one function in a range of sixteen."""

    name = "hot"
    ranges = (FunctionRange(Owner.STANDARD, 0x20, 0x2F, Widths.SMC64),)
    journal = JournalMode.INPUT

    def handlers(self) -> dict[int, Handler]:
        return {0xC400_0021: lambda pe, regs: regs[X0 + 1] + pe}


class User(Service):
    """A service in the way users write them: it answers what it is told to."""

    ranges = (FunctionRange(Owner.OEM, 0, 0xFF),)

    def __init__(self, answer: Any = 0) -> None:
        self.answer = answer
        self.calls: list[Call] = []

    def call(self, call: Call) -> Any:
        self.calls.append(call)
        return self.answer


def registry(*services: Service) -> Registry:
    """A registry of these."""
    made = Registry()
    for service in services:
        made.register(service)
    return made


def call(made: Registry, function: int, *args: int) -> tuple[Any, Regs]:
    """A call as the owner makes it; the handler's answer and the registers."""
    regs = new_regs()
    for index, value in enumerate((function, *args), X0):
        regs[index] = value
    handler = made.lookup(function)
    assert handler is not None
    return handler(3, regs), regs


def test_lookup_of_built_in_handlers() -> None:
    """By id; the rest of the range is not implemented."""
    made = registry(Hot())
    assert call(made, 0xC400_0021, 39)[0] == 42
    assert made.table.keys() == {0xC400_0021}
    for unknown in (0xC400_0020, 0xC400_0022, 0x8400_0021, 0x4400_0021, 0x0400_0021, 0, 0xFFFF_FFFF):
        assert made.lookup(unknown) is None
        assert not made.implemented(unknown)
    assert made.implemented(0xC400_0021)


def test_only_w0_counts_and_the_sve_hint_does_not() -> None:
    """Garbage in the upper half and bit 16 change nothing."""
    made = registry(Hot(), User(7))
    assert made.lookup(0xDEAD_BEEF_C400_0021) is made.lookup(0xC400_0021) is not None
    assert made.lookup(0xC401_0021) is made.lookup(0xC400_0021)
    assert made.lookup(0xC301_0000) is made.lookup(0xC300_0000) is not None
    assert made.lookup(0xC302_0000) is None


def test_user_service_gets_the_whole_range_in_both_widths() -> None:
    """A 32-bit call has 32-bit arguments: upper halves are ignored."""
    user = User(5)
    made = registry(user)
    arguments = [0x1_0000_0000_0000 * n + n for n in range(1, 18)]
    answer, regs = call(made, 0xC300_00FF, *arguments)
    assert answer == (5,)
    assert regs[X0 + 1 :].tolist() == arguments
    call(made, 0x8300_0010, *arguments)
    assert user.calls == [
        Call(3, 0xC300_00FF, tuple(arguments), 64),
        Call(3, 0x8300_0010, tuple(range(1, 18)), 32),
    ]
    assert made.lookup(0xC300_0100) is None
    assert made.lookup(0x0300_0000) is None, "a yielding call"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (0, (0,)),
        (-7, (-7,)),
        (WORD, (WORD,)),
        (-(1 << 63), (-(1 << 63),)),
        (True, (1,)),
        (None, (-1,)),
        ((1,), (1,)),
        ((0, -1, 2), (0, -1, 2)),
        (tuple(range(18)), tuple(range(18))),
    ],
)
def test_results_of_a_user_service(answer: Any, words: tuple[int, ...]) -> None:
    """All in one form for the owner, who records them first and writes them into x0, x1, ... then."""
    got, regs = call(registry(User(answer)), 0xC300_0000, *[0x99] * 17)
    assert got == words
    assert all(type(word) is int for word in got)
    assert regs[X0 + 1 :].tolist() == [0x99] * 17


@pytest.mark.parametrize(
    "answer", ["text", 1.5, [1], (), (1, "x"), tuple(range(19)), 1 << 64, (0, -(1 << 63) - 1), b"x"]
)
def test_wrong_results_of_a_user_service(answer: Any) -> None:
    """Said in the author's terms; no register was changed."""
    made = registry(User(answer))
    regs = new_regs()
    regs[X0] = 0xC300_0000
    handler = made.lookup(0xC300_0000)
    assert handler is not None
    with pytest.raises(UsageError, match=r"service User: call\(\) returned"):
        handler(0, regs)
    assert regs[X0 + 1 :].tolist() == [0] * 17


def test_exception_of_a_user_service_reaches_the_owner() -> None:
    """Which traces it and answers NOT_SUPPORTED."""

    class Broken(User):
        def call(self, call: Call) -> Any:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(registry(Broken()), 0xC300_0000)


def test_generator_of_a_user_service() -> None:
    """Micro-operations go out, their results come in, the result is the generator's value."""

    class Stepwise(User):
        def call(self, call: Call) -> Generator[object, int, tuple[int, int]]:
            first = yield "read a"
            second = yield "read b"
            return first, second

    steps, _ = call(registry(Stepwise()), 0xC300_0000)
    assert next(steps) == "read a"
    assert steps.send(7) == "read b"
    with pytest.raises(StopIteration) as stop:
        steps.send(8)
    assert stop.value.value == (7, 8)


@pytest.mark.parametrize(
    ("functions", "overlaps"),
    [
        (FunctionRange(Owner.OEM, 0xFF, 0x200), True),
        (FunctionRange(Owner.OEM, 0x80, 0x80, Widths.SMC32), True),
        (FunctionRange(Owner.OEM, 0, 0xFFFF, Widths.SMC64), True),
        (FunctionRange(Owner.OEM, 0x100, 0x200), False),
        (FunctionRange(Owner.SIP, 0, 0xFF), False),
    ],
)
def test_overlap(functions: FunctionRange, overlaps: bool) -> None:
    """Both services are named, and the second is not half registered."""

    class Other(Service):
        ranges = (FunctionRange(Owner.VENDOR_HYP, 0, 1), functions)

    made = registry(User())
    if overlaps:
        with pytest.raises(
            UsageError, match=r"service Other \(owner .*\) overlaps service User \(owner 3, functions 0x0"
        ):
            made.register(Other())
    else:
        made.register(Other())
    assert len(made) == (1 if overlaps else 2)
    assert (made.service_of(0xC600_0000) is None) is overlaps


def test_widths_apart_do_not_overlap() -> None:
    """The 32-bit twin of a function may belong to somebody else."""

    class Narrow(Service):
        ranges = (FunctionRange(Owner.STANDARD, 0x20, 0x2F, Widths.SMC32),)

    made = registry(Hot(), Narrow())
    assert [service.title for service in made] == ["hot", "Narrow"]
    assert made.service_of(0x8400_0021).__class__ is Narrow
    assert made.service_of(0xC400_0021).__class__ is Hot


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (64, 0, 0), (3, -1, 0), (3, 2, 1), (3, 0, 0x1_0000)])
def test_ranges_that_cannot_be(numbers: tuple[int, int, int]) -> None:
    """Owner, first, last."""

    class Odd(Service):
        ranges = (FunctionRange(*numbers),)

    with pytest.raises(UsageError, match="service Odd: function range owner"):
        registry(Odd())


def test_service_overlapping_itself_or_without_ranges() -> None:
    """Slips of whoever writes one."""

    class Twice(Service):
        ranges = (FunctionRange(3, 0, 5), FunctionRange(3, 5, 6))

    class Nothing(Service):
        name = "nothing"

    class Astray(Hot):
        ranges = (FunctionRange(Owner.STANDARD, 0x30, 0x3F),)

    for service, message in (
        (Twice(), "Twice .* overlaps service Twice"),
        (Nothing(), "service nothing: it has no ranges"),
        (Astray(), "handler for 0xc4000021, which is not in its ranges"),
    ):
        made = Registry()
        with pytest.raises(UsageError, match=message):
            made.register(service)
        assert len(made) == 0
        assert not made.table


def test_a_service_is_found_by_its_class_if_it_is_there() -> None:
    hot = Hot()
    made = registry(hot)
    assert made.find(Hot) is hot
    with pytest.raises(UsageError, match="there is no service User"):
        made.find(User)


@given(st.integers(0, WORD))
def test_any_function_id_can_be_looked_up(function: int) -> None:
    """Nothing that a guest puts into x0 does harm."""
    made = registry(Hot(), User())
    function &= FUNCTION_MASK
    known = function == 0xC400_0021 or (function & 0xBFFF_FF00) == 0x8300_0000
    assert made.implemented(function) is known


@given(st.integers(0, 63), st.integers(0, 0xFFFF), st.sampled_from([32, 64]))
def test_anatomy(owner: int, number: int, width: int) -> None:
    """Ids taken apart are what they were put together from."""
    function = function_id(owner, number, width)
    assert function >> 31 == 1
    assert (owner_of(function), number_of(function), width_of(function)) == (owner, number, width)
