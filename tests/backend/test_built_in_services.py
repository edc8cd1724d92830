"""A service that is built in is a class and a line: the firmware makes it, asks it and keeps its state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import pytest

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.errors import ProtocolError
from qemu_sdei.services import built_in
from qemu_sdei.services.platform import Platform
from qemu_sdei.smccc.ids import Owner
from qemu_sdei.smccc.regs import Regs
from qemu_sdei.smccc.service import FunctionRange, Handler, JournalMode, Service
from tests.backend.simulated import SimulatedBoot, SimulatedGuest, serve

COUNT = 0x8400_1000
X0 = 3
"""Place in what `take` returns."""


class Counter(Service):
    """Counts its calls, and adds the number of CPUs."""

    name = "counter"
    ranges = (FunctionRange(Owner.STANDARD, 0x1000, 0x1000),)
    journal = JournalMode.INPUT
    names: ClassVar[Mapping[int, str]] = {COUNT: "COUNT"}

    @classmethod
    def of(cls, platform: Platform) -> Self | None:
        """Not for a guest with one CPU."""
        return cls(len(platform.affinities)) if len(platform.affinities) > 1 else None

    def __init__(self, count: int) -> None:
        self.count = self.first = count

    def handlers(self) -> dict[int, Handler]:
        return {COUNT: self._count}

    def _count(self, pe: int, regs: Regs) -> int:
        self.count += 1
        return self.count

    def reset(self) -> None:
        self.count = self.first

    def snapshot(self) -> int:
        return self.count

    def restore(self, state: object) -> None:
        if not isinstance(state, int):
            raise ProtocolError("counter: no number")
        self.count = state


@pytest.fixture(autouse=True)
def _with_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_in, "SERVICES", (*built_in.SERVICES, Counter))


def test_it_answers_what_it_was_made_for(tmp_path: Path) -> None:
    guest = SimulatedGuest(2, tmp_path)
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    for count in (3, 4):
        guest.smc(0, COUNT)
        serve(server)
        assert guest.take(0)[X0] == count


def test_a_guest_may_have_none() -> None:
    assert "counter" in [service.title for service in Firmware(2).registry]
    assert "counter" not in [service.title for service in Firmware(1).registry]


def test_its_state_goes_along_and_is_checked() -> None:
    firmware = Firmware(2, boot=SimulatedBoot())
    firmware.registry.find(Counter).count = 77
    state = firmware.snapshot()
    other = Firmware(2, boot=SimulatedBoot())
    other.restore(state)
    assert other.registry.find(Counter).count == 77
    state["services"]["counter"] = "many"
    with pytest.raises(ProtocolError, match="counter"):
        Firmware(2).restore(state)
    del state["services"]["counter"]
    with pytest.raises(ProtocolError, match="counter"):
        Firmware(2).restore(state)
