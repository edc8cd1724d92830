"""Migrations of a guest whose service is amid its micro-operations when QEMU has stopped the vCPUs.

How far the service has come cannot be written down. The guest runs on, and it is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei.errors import GuestError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration import retry
from qemu_sdei.migration.options import Step
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import check_nothing_left, explained, until
from tests.guest.remote import Receiving

pytestmark = pytest.mark.guest

SERVICE = """
import time
from pathlib import Path
from qemu_sdei.monitor.layout import SysReg
from qemu_sdei.monitor.ops import read_sysreg
from qemu_sdei.smccc import FunctionRange, JournalMode, Owner, Service


class Slow(Service):
    name = "slow"
    ranges = (FunctionRange(Owner.OEM, 0x10, 0x1F),)
    journal = JournalMode.INPUT

    def call(self, call):
        Path("{folder}/began").touch()
        while not Path("{folder}/go").exists():
            yield read_sysreg(SysReg.CNTFRQ_EL0)
            time.sleep(0.1)  # the journal has room for only so many of them
        return (0x600D,)
"""


def busy(folder: Path) -> GuestOptions:
    """A guest that calls the service, which is amid its micro-operations until there is a file `go`."""
    service = folder / "service.py"
    service.write_text(SERVICE.format(folder=folder))
    append = "mode=call function=0xc3000010 stay=1"
    return GuestOptions(kernel="builtin:bench", append=append, memory="128M", services=(service,), name="a")


class Watched:
    """What is told of a migration; `act` is called when it is tried again."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.phases: list[str] = []
        self._act = act

    def __call__(self, step: Step) -> None:
        self.phases.append(step.phase)
        if step.phase == "again":
            self._act()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("route", ["shared", "live", "postcopy"])
def test_tried_again(route: str, runtime: Path, tmp_path: Path) -> None:
    """QEMU is not let go on the first time; what the service gives in the end is the guest's, and once."""
    with Guest(busy(tmp_path)) as guest, explained(guest):
        until("it is called", (tmp_path / "began").exists)
        watched = Watched((tmp_path / "go").touch)
        assert guest.migrate("b", route=route, report=watched).destination == "b"
        assert "again" in watched.phases
        guest.expect("x0=0x600d")
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_tried_again_to_another_host(runtime: Path, tmp_path: Path) -> None:
    """The receiver has seen one come to nothing, and takes the next."""
    with Guest(busy(tmp_path)) as guest, Receiving(name="b") as there, explained(guest):
        until("it is called", (tmp_path / "began").exists)
        watched = Watched((tmp_path / "go").touch)
        assert guest.migrate_to(there.to, report=watched).destination == "b"
        assert len(there.failures) == watched.phases.count("again") > 0
        there.guest.expect("x0=0x600d")
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_not_for_ever(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is amid them each time: it is said what to do, and the guest goes on."""
    monkeypatch.setattr(retry, "TRIES", 2)
    with Guest(busy(tmp_path)) as guest, explained(guest):
        until("it is called", (tmp_path / "began").exists)
        watched = Watched(lambda: None)
        with pytest.raises(GuestError, match=r"runs on as 'a': .*attempts: 2.* by route copy"):
            guest.migrate("b", route="live", report=watched)
        assert watched.phases.count("again") == 1
        (tmp_path / "go").touch()
        guest.expect("x0=0x600d")
        assert guest.migrate("b", route="live").destination == "b"
    check_nothing_left(runtime)
