"""The Arm architecture service."""

from __future__ import annotations

import pytest

from qemu_sdei.smccc import FunctionRange, JournalMode, Registry, Service
from qemu_sdei.smccc.arch import ArchService
from qemu_sdei.smccc.regs import X0, new_regs

VERSION, FEATURES = 0x8000_0000, 0x8000_0001


class PvTime(Service):
    """One that takes part in discovery, as PV_TIME does."""

    ranges = (FunctionRange(5, 0x20, 0x21),)

    def arch_features(self, function: int) -> int | None:
        return 0 if function == 0xC500_0020 else None


def ask(function: int, argument: int = 0) -> int | None:
    """A call with the usual services there."""
    registry = Registry()
    registry.register(ArchService(registry))
    registry.register(PvTime())
    handler = registry.lookup(function)
    if handler is None:
        return None
    regs = new_regs()
    regs[X0] = function
    regs[X0 + 1] = argument
    result = handler(0, regs)
    assert isinstance(result, int)
    return result


def test_version() -> None:
    """1.2 unless told otherwise."""
    assert ask(VERSION) == 0x1_0002
    registry = Registry()
    registry.register(ArchService(registry, 0x1_0001))
    assert registry.table[VERSION](0, new_regs()) == 0x1_0001


@pytest.mark.parametrize("function", [VERSION, FEATURES, 0xC500_0020, 0xABCD_0000_0000 | VERSION])
def test_features_that_are_there(function: int) -> None:
    """0; the argument is 32-bit."""
    assert ask(FEATURES, function) == 0


@pytest.mark.parametrize(
    "function",
    [
        0x8000_0002,
        0x8000_8000,
        0x8000_7FFF,
        0x8000_3FFF,
        0xC000_0000,
        0xC500_0021,
        0x8500_0020,
        0xC400_0020,
        0,
        0xFFFF_FFFF,
    ],
)
def test_features_that_are_not(function: int) -> None:
    """SOC_ID, the workarounds, functions that say nothing, ids of nobody."""
    assert ask(FEATURES, function) == -1


@pytest.mark.parametrize("function", [0x8000_0002, 0x8000_8000, 0x8000_7FFF, 0x8000_3FFF, 0xC000_0000, 0xC000_0001])
def test_what_is_denied_is_not_there_either(function: int) -> None:
    """The call itself is unknown: the owner answers NOT_SUPPORTED."""
    assert ask(function) is None


def test_it_needs_no_journal() -> None:
    """Same answer each time."""
    assert ArchService.journal is JournalMode.NONE
