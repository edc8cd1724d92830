"""Linux crashes with a capture kernel loaded: that one runs on all CPUs, has the memory of the one before, takes
events, and can crash itself. For how the panic is followed here: `GuestOptions.on_panic`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import pytest

from qemu_sdei.errors import GuestPanicError, NotDeliveredError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.vm.options import GuestOptions
from tests.guest.client import KO, Client, module_for
from tests.guest.guests import until
from tests.guest.kdump import IMAGE, crash_load, online, shell

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

CPUS = 4
TRIES = 4
"""On a busy host Linux does not stop all its CPUs in one of ten crashes: see `NotStoppedError`."""
ROUNDS = int(os.environ.get("QEMU_SDEI_KDUMP_ROUNDS", "10"))
"""Of the slow test, two crashes each."""


def crash_outside(guest: Guest, cpu: int) -> str:
    """Crash by sysrq, on one of the kernel's own CPUs; what the panic said."""
    with pytest.raises(GuestPanicError, match="sysrq triggered crash"):
        guest.run(f"taskset {1 << cpu:x} sh -c 'echo c >/proc/sysrq-trigger'")
    return guest.expect_panic().message


def crash_in_handler(guest: Guest, cpu: int) -> str:
    """Crash in the handler of an event on a physical CPU, which has interrupted an interrupt's handler: that one is
    never ended. What the panic said: Linux says nothing in an NMI with a capture kernel loaded.
    """
    client = Client(guest)
    client.load("verbose=0")
    shell(guest, f"for n in $(seq {CPUS}); do dd if=/dev/zero of=/dev/null bs=1 & done >/dev/null 2>&1")
    before = guest.status()["kernels"]
    assert client.do("panic irq") is None
    with guest.client() as control:

        def crashed() -> bool:
            for _ in range(50):
                with contextlib.suppress(NotDeliveredError):  # masked, or the next kernel runs
                    control.inject(0, cpu)
            return bool(guest.status()["kernels"] > before)

        until("an event interrupts an interrupt's handler", crashed, 60)
    return guest.expect_panic().message


class NotStoppedError(Exception):
    """A CPU of the kernel that crashed runs on.

    The handler that panics has interrupted an interrupt's handler, which may hold a lock. Another CPU that waits for
    that one has its interrupts masked, and Linux stops CPUs by an interrupt. Seen with the kernel 6.12: a CPU that
    waits for a run queue's lock. The capture kernel finds it on already (-22), and it may read what is typed.
    """


def check_stopped(guest: Guest, before: Sequence[int], crashed_on: int) -> None:
    """Raise `NotStoppedError` unless each other CPU has gone off; `before`: how often each had by then."""
    calls = [pe["calls"].get("CPU_OFF", 0) for pe in guest.status()["pes"]]
    running = [cpu for cpu in range(CPUS) if cpu != crashed_on and calls[cpu] == before[cpu]]
    if running:
        raise NotStoppedError(f"CPUs {running}")


def check_capture_kernel(guest: Guest, crashed_on: int, kernel: int) -> list[int]:
    """It has all CPUs, the first of them the one that crashed, and the memory of the kernel before; events arrive.
    Returns which they are.
    """
    shell(guest, "dmesg -n 1")
    cpus = online(guest)
    assert cpus[0] == crashed_on
    assert sorted(cpus) == list(range(CPUS))
    release = shell(guest, "uname -r")
    # The vmcoreinfo note is in the memory of the kernel before. (All of it to read takes minutes under TCG.)
    head = shell(guest, "dd if=/proc/vmcore bs=64k count=2 2>/dev/null | strings | grep -m 1 OSRELEASE")
    assert head == f"OSRELEASE={release}"
    assert shell(guest, "dd if=/proc/vmcore bs=64k skip=1024 count=2 2>/dev/null | wc -c") == str(2 << 16)
    status = guest.status()
    assert (status["epoch"], status["kernels"], guest.resets) == (1, kernel, [])
    assert [(pe["power"], pe["running"], pe["masked"]) for pe in status["pes"]] == [("on", [], False)] * CPUS
    registered = [event["name"] for event in status["events"] for entry in event["instances"] if entry["registered"]]
    assert set(registered) <= {"ghes"}  # by ACPI the kernel's own
    assert status["counts"]["rejected"] == 0
    client = Client(guest)
    client.load("verbose=0 events=0,0x100")
    for event in (0, 0x100):
        for pe in range(CPUS):
            guest.inject(event, pe, wait=True, timeout=30)
        assert [client.count(cpu, event) for cpu in range(CPUS)] == [(1, 1)] * CPUS
    client.unload()
    return cpus


def crash_and_capture(series: str, boot: str, crashes: Sequence[tuple[int, bool]], *, hypervisor: bool = False) -> None:
    """`crash`, in a new guest where Linux did not stop all CPUs of the one before."""
    for left in reversed(range(TRIES)):
        try:
            crash(series, boot, crashes, hypervisor=hypervisor)
            return
        except NotStoppedError:
            if not left:
                raise


def crash(series: str, boot: str, crashes: Sequence[tuple[int, bool]], *, hypervisor: bool) -> None:
    """A panic, and further ones of the capture kernels: on which physical CPU, and whether in a handler."""
    image = DebianCache().kernel(series).image
    options = GuestOptions(
        series=series,
        smp=CPUS,
        boot="acpi" if boot == "acpi" else "dt",
        hypervisor=hypervisor,
        memory="1G",
        append="crashkernel=512M",
        files={KO: module_for(series), IMAGE: image},
        on_panic="continue",
        boot_timeout=120,
    )
    with Guest(options) as guest:
        shell(guest, "dmesg -n 1")
        crash_load(guest, image, again="192M")
        cpus = list(range(CPUS))
        for number, (cpu, in_handler) in enumerate(crashes, 2):
            off = [pe["calls"].get("CPU_OFF", 0) for pe in guest.status()["pes"]]
            if in_handler:
                assert crash_in_handler(guest, cpu) in ("SDEI TEST: in the handler of event 0x0", "")
            else:
                assert crash_outside(guest, cpus.index(cpu)) == "sysrq triggered crash"
            guest.wait_shell()
            check_stopped(guest, off, cpu)
            cpus = check_capture_kernel(guest, cpu, number)
            if number <= len(crashes):
                crash_load(guest, image)
        assert guest.poweroff().guest


@pytest.mark.slow  # a cell of the crash matrix has a capture kernel with all CPUs too (test_crash_matrix.py)
@pytest.mark.parametrize("hypervisor", [False, True], ids=["alone", "above EL2"])
@pytest.mark.parametrize(
    ("series", "boot", "crashes"),
    [
        ("6.12", "acpi", [(3, True), (1, False)]),
        ("6.1", "dt", [(2, False), (0, True)]),
    ],
    ids=["ACPI", "device tree"],
)
def test_smp_kdump(series: str, boot: str, crashes: list[tuple[int, bool]], hypervisor: bool) -> None:
    crash_and_capture(series, boot, crashes, hypervisor=hypervisor)


@pytest.mark.slow
@pytest.mark.timeout(120 * ROUNDS + 600)
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_smp_kdump_many_times(series: str) -> None:
    """QEMU_SDEI_KDUMP_ROUNDS says how many boots, of which each crashes twice."""
    for n in range(ROUNDS):
        in_handler = n % 2 == 0
        crashes = [(n % CPUS, in_handler), ((n + 1 + n // 4) % CPUS, not in_handler)]
        crash_and_capture(series, "acpi" if n % 3 == 2 else "dt", crashes)
