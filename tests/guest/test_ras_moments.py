"""Hardware errors at moments that are bad for a kernel: while the guest moves, over and under other handlers, more than
it prints. Each is dealt with once, and acknowledged.
"""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qemu_sdei.errors import GuestError, NotDeliveredError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration.options import Hold, Step
from qemu_sdei.ras import kinds
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.vm.options import GuestOptions
from tests.guest import linux_ras
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import runtime_directory, until
from tests.guest.test_cpus import TROUBLE

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]

VCPU = 1
SLOW, SLOW_CRITICAL = 0x100, 0x103
"""Private events whose handlers, the client module's, take as long as they are told to."""
PRIVATE_CRITICAL = 0x323
EVENTS = linux_ras.EVENTS.replace(
    "[[source]]",
    '[[event]]\nnumber = 0x100\nname = "slow"\n\n'
    '[[event]]\nnumber = 0x103\nname = "slow-critical"\npriority = "critical"\n\n[[source]]',
    1,
)
LIMIT = 120.0
TRACING = "/sys/kernel/tracing"
TRACE = f"{TRACING}/instances/moments"
EVENT = "events/ras/non_standard_event"
ROUTES = ["shared", *(pytest.param(route, marks=pytest.mark.slow) for route in ("live", "copy", "postcopy"))]
NUMBERS = r"s/.*raw data: *\(.. .. .. ..\).*/\1/p"
PATIENT = "nowatchdog rcupdate.rcu_cpu_stall_suppress=1 workqueue.watchdog_thresh=0"
"""What Linux says of CPUs that do not get on is said of the host here: it gives them all the errors that it can."""


class World:
    """A guest, and errors of which each is told apart in its kernel's trace."""

    def __init__(self, guest: Guest, series: str) -> None:
        self.guest = guest
        self.series = series
        self.client = Client(guest)
        guest.run(f"mount -t tracefs tracefs {TRACING}; mkdir {TRACE}; echo 1 >{TRACE}/{EVENT}/enable", timeout=LIMIT)
        self.sent: list[int] = []
        """Of which it is known that they were reported."""
        self._numbers = itertools.count(1)

    def error(self) -> tuple[int, bytes]:
        """Another one: no two are equal, so that Linux drops none of them."""
        number = next(self._numbers)
        section = kinds.raw(linux_ras.UNKNOWN, struct.pack(">I12x", number))
        return number, block([entry(section)]).pack()

    def report(
        self, source: str, vcpu: int | None = None, *, wait: bool = True, client: ControlClient | None = None
    ) -> dict[str, Any]:
        """Report one. Raises `NotDeliveredError`: it was refused, and nothing was written."""
        number, data = self.error()
        control = client or self.guest.client()
        try:
            found: dict[str, Any] = control.ras_report(source, data, vcpu=vcpu, wait=wait, timeout=LIMIT)
        except NotDeliveredError as error:
            if "before its handler started" not in str(error):
                raise
            # The vCPU went off. The error lies there, and another vCPU is told of it.
            found = {"outcome": "queued"}
        self.sent.append(number)
        return found

    def handled(self) -> Counter[int]:
        """How often the kernel has traced each."""
        found = self.guest.run(f"sed -n '{NUMBERS}' {TRACE}/trace", timeout=LIMIT)
        return Counter(int(line.replace(" ", ""), 16) for line in found.output.split("\n") if line.strip())

    def free(self) -> bool:
        return all(each.state == "free" for each in self.guest.ras.sources())

    def settled(self) -> None:
        """Each error was dealt with once, and acknowledged; the kernel has nothing to complain about."""
        until("all sources are free", self.free, LIMIT)
        deadline = time.monotonic() + LIMIT
        while missing := set(self.sent) - (handled := self.handled()).keys():
            assert time.monotonic() < deadline, f"not in the trace: {sorted(missing)}"
        twice = {number: times for number, times in handled.items() if times != 1}
        assert not twice
        assert handled.keys() <= set(self.sent)
        assert not [line for line in self.guest.run("dmesg", timeout=LIMIT).output.splitlines() if TROUBLE.search(line)]


def move(guest: Guest, route: str, **more: Any) -> None:
    """Migrate it. By postcopy it may stay where it is: RAM is not compared then, and QEMU does not see what the backend
    writes there.
    """
    cancelled = ""
    try:
        guest.migrate("b" if guest.name == "a" else "a", route=route, **more)
    except GuestError as error:
        cancelled = str(error)
    if cancelled:
        assert route == "postcopy"
        assert "was told of a hardware error while its RAM was being sent" in cancelled


class Storm:
    """Errors of some sources, one after the other, with as much time between them as they take; in a `with`.

    One that is refused has written nothing, and comes again as another one.
    """

    def __init__(self, world: World, *sources: tuple[str, int | None]) -> None:
        """`sources`: their names, and the vCPU that is told (None: any)."""
        self.reported = 0
        self.refused: Counter[str] = Counter()
        """Why, and how often."""
        self._world = world
        self._end = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=each) for each in sources]

    def __enter__(self) -> Storm:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(LIMIT)
        assert not [thread for thread in self._threads if thread.is_alive()]
        assert not self._failures, self._failures

    def _run(self, source: str, vcpu: int | None) -> None:
        try:
            with self._world.guest.client() as client:
                pause = 0.01
                while not self._end.wait(pause):
                    began = time.monotonic()
                    try:
                        self._world.report(source, vcpu, client=client)
                    except NotDeliveredError as error:
                        self.refused[str(error)] += 1
                    else:
                        self.reported += 1
                    # Without it a guest whose host is busy does nothing else.
                    pause = 2 * (time.monotonic() - began)
        except BaseException as error:
            self._failures.append(error)

    def blows(self) -> None:
        """Wait until some more have come through."""
        wanted = self.reported + 10
        until("errors are dealt with", lambda: self.reported >= wanted or self._failures, LIMIT)


@pytest.fixture(scope="module", params=[pytest.param("6.1", marks=pytest.mark.slow), "6.12"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    series = request.param
    events = tmp_path_factory.mktemp("ras") / "events.toml"
    events.write_text(EVENTS)
    with pytest.MonkeyPatch.context() as patch, runtime_directory() as path:
        patch.setenv("XDG_RUNTIME_DIR", str(path))
        options = GuestOptions(
            series=series,
            ras=True,
            helper=True,
            smp=2,
            memory="256M",
            append=PATIENT,
            events=events,
            files={KO: module_for(series)},
        )
        with Guest(options) as guest:
            guest.wait_shell(200)
            guest.run("dmesg -n 1")
            made = World(guest, series)
            made.client.load(f"events={SLOW:#x},{SLOW_CRITICAL:#x} verbose=0")
            yield made


@pytest.mark.timeout(400)
@pytest.mark.parametrize("route", ROUTES)
def test_while_the_guest_moves(route: str, world: World) -> None:
    """One whose handler runs at the switchover, and one before and after it."""
    guest = world.guest
    begun: list[threading.Thread] = []

    def report(step: Step) -> None:
        if step.phase == "hold" and not begun:
            begun.append(threading.Thread(target=world.report, args=("v2-critical", 0), kwargs={"wait": False}))
            begun[0].start()

    world.report("v2-normal")
    move(guest, route, hold=Hold("running", PRIVATE_CRITICAL, 0), report=report)
    begun[0].join(LIMIT)
    world.report("v2-normal")
    world.settled()


@pytest.mark.timeout(400)
def test_a_storm_while_vcpus_come_and_go(world: World) -> None:
    online = f"/sys/devices/system/cpu/cpu{VCPU}/online"
    with Storm(world, ("v2-normal", None), ("v2-critical", VCPU)) as storm:
        for _ in range(2):
            storm.blows()
            world.guest.run(f"echo 0 >{online}", timeout=LIMIT)
            storm.blows()
            world.guest.run(f"echo 1 >{online}", timeout=LIMIT)
        storm.blows()
    world.settled()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("route", ROUTES)
def test_a_storm_while_the_guest_moves(route: str, world: World) -> None:
    """There and back: each error that was taken is dealt with once, wherever the guest is by then."""
    guest = world.guest
    with Storm(world, ("v2-normal", None), ("v2-critical", VCPU), ("v1-normal", 0)) as storm:
        for _ in range(2):
            storm.blows()
            move(guest, route)
        storm.blows()
    world.settled()


@pytest.mark.timeout(300)
def test_over_and_under_other_handlers(world: World) -> None:
    guest, client = world.guest, world.client

    def running() -> list[int]:
        found: list[int] = guest.status()["pes"][VCPU]["running"]
        return found

    def state(name: str) -> str:
        return next(each.state for each in guest.ras.sources() if each.name == name)

    def meanwhile(event: int, act: Callable[[], None]) -> None:
        """Do that while a handler runs; once more, with a longer one, if it had ended before this was done."""
        for seconds in (1, 4, 10):
            assert client.do(f"run-for {seconds}000000000") is None
            guest.inject(event, VCPU)
            until("its handler runs", lambda: running() == [event], LIMIT)
            act()
            done = running() == [event]
            until("the handler's end", lambda: not running(), LIMIT)
            until("all is acknowledged", world.free, LIMIT)
            if done:
                return
        raise AssertionError(f"the handler of {event:#x} ended too soon each time")

    def over() -> None:
        # It does not wait for a normal handler. Of the same source the next one can come at once.
        for _ in range(2):
            assert world.report("v2-critical", VCPU)["vcpu"] == VCPU

    refused: list[str] = []

    def under() -> None:
        # It waits for a critical one, and the next one of the same source is refused meanwhile.
        world.report("v2-critical", VCPU, wait=False)
        try:
            world.report("v2-critical", VCPU, wait=False)
        except NotDeliveredError as error:
            refused.append(str(error))
        world.report("v1-normal", VCPU, wait=False)

    meanwhile(SLOW, over)
    meanwhile(SLOW_CRITICAL, under)
    assert "the error before is not read yet" in refused[-1]
    assert client.do("run-for 0") is None
    world.settled()


@pytest.mark.timeout(300)
def test_linux_prints_few_and_deals_with_all(world: World) -> None:
    """It prints two in five seconds: those that differ are all traced, whatever is printed."""
    guest = world.guest

    def printed() -> int:
        return guest.run("dmesg -c").output.count("Hardware error from APEI")

    def prints_again() -> bool:
        world.report("v2-normal")
        return printed() > 0

    until("the kernel prints one: others may have been printed just before", prints_again)
    for _ in range(20):
        world.report("v2-normal")
    world.settled()
    assert printed() < 20
    # With addresses that differ: of each the kernel is told, and none stays unread.
    for page in range(40):
        section = kinds.Memory(physical_address=0x4800_0000 + page * 4096)
        told = guest.client().ras_report("v2-normal", block([entry(section)]).pack(), wait=True, timeout=LIMIT)
        assert told["outcome"] == "completed"
    world.settled()
