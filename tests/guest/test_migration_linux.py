"""Linux is migrated exactly when an event of its, or a CPU, is in a given state: each event is handled once, by its own
counts, whichever route it went, and the kernel has nothing to complain about.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from qemu_sdei import rundir
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration.options import Hold, Step
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import runtime_directory, until

pytestmark = pytest.mark.guest

CPU, EVENT, CRITICAL = 1, 0x100, 0x103
LIMIT = 20.0
ONLINE = f"/sys/devices/system/cpu/cpu{CPU}/online"


class Kernel(Client):
    """Linux with the module; counts what was injected into `CPU`."""

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.injected = {EVENT: 0, CRITICAL: 0}

    def inject(self, event: int) -> None:
        self.guest.inject(event, CPU)
        self.injected[event] += 1

    def command(self, command: str) -> None:
        assert self.do(command) is None, command

    def inject_disabled(self) -> None:
        self.command(f"disable {EVENT:#x}")
        self.inject(EVENT)

    def inject_masked(self) -> None:
        self.command(f"mask {CPU}")
        self.inject(EVENT)

    def inject_over(self, event: int) -> None:
        """One while the handler of another runs."""
        self.inject(EVENT)
        until("the handler runs", lambda: self.guest.status()["pes"][CPU]["running"] == [EVENT])
        self.inject(event)

    def handled(self) -> dict[int, int]:
        return {event: self.count(CPU, event)[1] for event in self.injected}


class Case(NamedTuple):
    """A hold point, what leads to it once it is armed, what undoes that, and what the document says there."""

    hold: Hold
    act: Callable[[Kernel], None]
    undo: str
    is_so: Callable[[dict[str, Any]], bool]
    slow_handler: bool = False


def state(pe: dict[str, Any]) -> tuple[int, bool] | None:
    """State and pending bit of `EVENT`."""
    found = [(e["state"], e["pending"]) for e in pe["events"] if e["event"] == EVENT]
    return found[0] if found else None


def running(pe: dict[str, Any]) -> list[int]:
    return [frame["event"] for frame in pe["frames"]]


CASES = {
    "registered": Case(
        Hold("registered", EVENT, CPU),
        lambda k: k.command(f"disable {EVENT:#x}"),
        f"enable {EVENT:#x}",
        lambda pe: state(pe) == (0b001, False),
    ),
    "pending-disabled": Case(
        Hold("pending-disabled", EVENT, CPU),
        Kernel.inject_disabled,
        f"enable {EVENT:#x}",
        lambda pe: state(pe) == (0b001, True),
    ),
    "pending-masked": Case(
        Hold("pending-masked", EVENT, CPU),
        Kernel.inject_masked,
        f"unmask {CPU}",
        lambda pe: state(pe) == (0b011, True) and pe["masked"],
    ),
    "running": Case(Hold("running", EVENT, CPU), lambda k: k.inject(EVENT), "", lambda pe: state(pe) == (0b111, False)),
    "running-pending": Case(
        Hold("running-pending", EVENT, CPU),
        lambda k: k.inject_over(EVENT),
        "",
        lambda pe: state(pe) == (0b111, True),
        slow_handler=True,
    ),
    "nested": Case(
        Hold("nested", CRITICAL, CPU),
        lambda k: k.inject_over(CRITICAL),
        "",
        lambda pe: running(pe) == [EVENT, CRITICAL],
        slow_handler=True,
    ),
    "exchange": Case(
        Hold("exchange", vcpu=CPU), lambda k: k.command(f"mask {CPU}"), f"unmask {CPU}", lambda pe: not pe["masked"]
    ),
    "off": Case(Hold("off", vcpu=CPU), lambda k: None, "", lambda pe: not pe["on"] and not pe["events"]),
}


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with pytest.MonkeyPatch.context() as patch, runtime_directory() as path:
        patch.setenv("XDG_RUNTIME_DIR", str(path))
        options = GuestOptions(series="6.1", smp=2, memory="256M", files={KO: module_for("6.1")}, name="a")
        with Guest(options) as guest:
            kernel = Kernel(guest)
            kernel.load(f"events={EVENT:#x},{CRITICAL:#x} verbose=0")
            yield kernel
            assert not re.search(r"BUG|Oops|WARNING|Call trace|stall", kernel.shell("dmesg"))
            assert guest.poweroff().guest


@pytest.mark.timeout(100)
@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize(
    ("name", "route"),
    [
        pytest.param("registered", "copy", marks=pytest.mark.slow),
        pytest.param("pending-disabled", "live", marks=pytest.mark.slow),
        ("pending-masked", "shared"),
        ("running", "postcopy"),
        pytest.param("running-pending", "shared", marks=pytest.mark.slow),
        ("nested", "live"),
        pytest.param("exchange", "postcopy", marks=pytest.mark.slow),
        pytest.param("off", "shared", marks=pytest.mark.slow),
    ],
)
def test_in_a_state(name: str, route: str, kernel: Kernel) -> None:
    case, guest = CASES[name], kernel.guest
    documents: list[dict[str, Any]] = []
    kernel.command(f"run-for {300_000_000 if case.slow_handler else 0}")
    path = rundir.base_path() / guest.name / rundir.STATE

    def act() -> None:
        case.act(kernel)
        if name == "off":
            kernel.shell(f"echo 0 >{ONLINE}")

    actor = threading.Thread(target=act)

    def report(step: Step) -> None:
        if step.phase == "hold":
            actor.start()
        elif step.phase in ("ram", "restore") and not documents and path.exists():
            documents.append(json.loads(path.read_bytes()))

    guest.migrate("b" if guest.name == "a" else "a", route=route, hold=case.hold, report=report)
    actor.join(LIMIT)
    assert not actor.is_alive()
    assert case.is_so(documents[0]["firmware"]["sdei"]["pes"][CPU])
    if name == "off":
        kernel.shell(f"echo 1 >{ONLINE}")
    if case.undo:
        kernel.command(case.undo)
    until("each event is handled once", lambda: kernel.handled() == kernel.injected)
    assert guest.inject(EVENT, CPU, wait=True, timeout=LIMIT).outcome == "completed"
    kernel.injected[EVENT] += 1
    assert kernel.handled() == kernel.injected
