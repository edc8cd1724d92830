"""Where an event finds a CPU: in user space of both kinds, idle, with interrupts masked; and what it leaves of that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest import programs
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import until

pytestmark = pytest.mark.guest

CPUS = 2
PRIVATE, OTHER, CRITICAL = 0x100, 0x101, 0x103
INTERRUPTS_MASKED = 1 << 7
EVENTS = 200


class Kernel(Client):
    """Linux with the module and the two programs."""

    def last(self, cpu: int, event: int = 0) -> dict[str, int]:
        """What the newest event interrupted there."""
        last = self.records(cpu, event)[-1]
        return {"pc": last.pc, "pstate": last.pstate, **{f"x{number}": value for number, value in enumerate(last.regs)}}

    def inject(self, cpu: int, event: int = 0) -> dict[str, int]:
        """Inject, and say what that interrupted."""
        self.guest.inject(event, cpu, wait=True, timeout=20)
        return self.last(cpu, event)


@pytest.fixture(scope="module", params=[pytest.param("6.1", marks=pytest.mark.slow), "6.12"])
def guest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    files = {KO: module_for(request.param)}
    folder: Path = tmp_path_factory.mktemp("programs")
    for name, content in (("spin64", programs.spin_a64()), ("spin32", programs.spin_a32())):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o755)
        files[f"/bin/{name}"] = folder / name
    with Guest(GuestOptions(series=request.param, smp=CPUS, files=files)) as guest:
        guest.run("dmesg -n 1")
        yield guest
        log = guest.run("dmesg").output
        assert not re.search(r"BUG|Oops|WARNING|Call trace|stall|unhandled", log), log
        assert guest.poweroff().guest


@pytest.fixture
def kernel(guest: Guest) -> Iterator[Kernel]:
    kernel = Kernel(guest)
    yield kernel
    guest.run("killall spin64 spin32; rmmod sdei_test")


@pytest.mark.parametrize(
    ("program", "mode", "registers"),
    [("spin64", 0x00, programs.A64_REGISTERS), ("spin32", 0x10, programs.A32_REGISTERS)],
    ids=["AArch64", "AArch32"],
)
def test_events_in_user_space_leave_no_trace_there(
    kernel: Kernel, program: str, mode: int, registers: tuple[int, ...]
) -> None:
    """The program checks its registers all the time, and goes on after hundreds of events.

    Most of them go back to it by way of the kernel's interrupt vector (COMPLETE_AND_RESUME).
    """
    kernel.load("verbose=0")
    kernel.shell(f"taskset 2 {program} & echo $! >/tmp/pid")
    seen = 0
    for _ in range(EVENTS):
        last = kernel.inject(1) if seen < 3 else None
        if last is None:
            kernel.guest.inject(0, 1, wait=True, timeout=20)
            continue
        if last["pstate"] & 0xF:
            continue  # the timer's tick was quicker
        if not programs.BASE < last["pc"] < programs.BASE + 0x2000:
            continue  # the shell's child, which has not become the program yet, or another program of the kernel's
        seen += 1
        assert last["pstate"] & 0x1F == mode
        assert {n: last[f"x{n}"] for n in registers} == {n: programs.value(n) for n in registers} or last["x0"] == 0
    assert seen >= 3
    assert kernel.count(1) == (EVENTS, EVENTS)
    assert kernel.shell("kill $(cat /tmp/pid); wait $(cat /tmp/pid); echo $?").strip().splitlines()[-1] == "143"


def test_events_while_a_cpu_is_idle(kernel: Kernel) -> None:
    kernel.load("verbose=0")
    symbols = [line.split() for line in kernel.shell("grep -w cpu_do_idle /proc/kallsyms").splitlines()]
    (start,) = (int(address, 16) for address, _, name, *_ in symbols if name == "cpu_do_idle")
    pcs = [kernel.inject(1)["pc"] for _ in range(20)]
    assert any(start <= pc < start + 0x100 for pc in pcs), f"cpu_do_idle is at {start:#x}, events came at {pcs}"


def test_critical_event_while_interrupts_are_masked(kernel: Kernel) -> None:
    """A handler runs with everything masked, as does a CPU that hangs with interrupts off."""
    kernel.load(f"events={PRIVATE},{CRITICAL} verbose=0")
    kernel.do("run-for 400000000")
    kernel.guest.inject(PRIVATE, 1)
    until("the normal event's handler runs", lambda: kernel.guest.status()["pes"][1]["running"] == [PRIVATE])
    kernel.guest.inject(CRITICAL, 1, wait=True, timeout=20)
    kernel.do("run-for 0")
    kernel.inject(1, PRIVATE)
    order = [
        (record["cause"], record["event"])
        for record in kernel.guest.trace()
        if record.get("cause") in ("DISPATCH", "COMPLETE")
    ]
    normal, critical = [("DISPATCH", PRIVATE), ("COMPLETE", PRIVATE)], [("DISPATCH", CRITICAL), ("COMPLETE", CRITICAL)]
    assert order[-6:] == [normal[0], *critical, normal[1], *normal]
    last = kernel.last(1, CRITICAL)
    assert last["pstate"] & INTERRUPTS_MASKED
    assert last["pstate"] & 0xC == 4


def test_each_cpu_has_its_own_private_events(kernel: Kernel) -> None:
    kernel.load(f"events={PRIVATE},{OTHER} verbose=0")
    for cpu, event, times in ((0, PRIVATE, 1), (1, PRIVATE, 2), (0, OTHER, 3), (1, OTHER, 4)):
        for _ in range(times):
            kernel.inject(cpu, event)
    counts = [kernel.count(cpu, event)[0] for event in (PRIVATE, OTHER) for cpu in range(CPUS)]
    assert counts == [1, 2, 3, 4]
    assert kernel.do("disable 0x100") is None
    assert "disabled" in str(kernel.guest.inject(PRIVATE, 1).reason)
    kernel.inject(1, OTHER)
    assert kernel.do("enable 0x100") is None
    kernel.wait_count(1, PRIVATE, began=3)
