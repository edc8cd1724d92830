"""Linux's own crash paths over SDEI, on the kernel of `scripts/crash-kernel`: NMIs between vCPUs, AGDI, crash dumps.

Without that kernel all of it is skipped; Debian's have none of these drivers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from qemu_sdei.errors import GuestPanicError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host import own_kernels
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vmcore.dump import Dump
from tests.guest.kdump import IMAGE, put, shell
from tests.guest.kexec import kexec_file_a64

SERIES: Final = "own-7.3"
CPUS: Final = 4
AGDI: Final = "Arm Generic Diagnostic Dump and Reset SDEI event issued"
CONTROL: Final = "/proc/sdei_test/control"
USING: Final = "sdei_nmi: using SDEI cross-CPU NMI (SDEI_EVENT_SIGNAL, event 0)"
SPI: Final = 208
SOFTWARE: Final = '[[event]]\nnumber = 0\nname = "software"\nsignalable = true\n'

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("linux", "runtime"),
    pytest.mark.skipif(own_kernels.find(SERIES) is None, reason=own_kernels.not_built(SERIES)),
]

LINUX: Final = GuestOptions(series=SERIES, boot="acpi", smp=CPUS, client=True, boot_timeout=240, start_timeout=120)


def with_module(guest: Guest) -> None:
    """The client module, without any event: it can turn a vCPU's interrupts off."""
    guest.wait_shell()
    guest.sdei_client([], verbose=0)


def registered(guest: Guest) -> set[str]:
    """Names of the events that the guest has registered."""
    events = guest.status()["events"]
    return {event["name"] for event in events if any(entry["registered"] for entry in event["instances"])}


def test_a_backtrace_comes_from_vcpus_with_interrupts_off() -> None:
    """sysrq-l asks all; Linux sends event 0, which the firmware delivers whatever is masked."""
    with Guest(LINUX) as guest:
        with_module(guest)
        assert USING in shell(guest, "dmesg")
        assert "software" in registered(guest)
        before = [pe["calls"].get("SDEI_EVENT_SIGNAL", 0) for pe in guest.status()["pes"]]
        shell(guest, f"echo irqs-off 2 5000000000 >{CONTROL}; taskset 1 sh -c 'echo l >/proc/sysrq-trigger'; sleep 1")
        log = shell(guest, "dmesg")
        asked = [re.search(r"Sending NMI from CPU 0 to CPUs 1-3", line) for line in log.splitlines()]
        assert any(asked), log[-3000:]
        for cpu in (1, 2, 3):
            assert re.search(rf"NMI backtrace for cpu {cpu}\b", log), (cpu, log[-3000:])
        # PSTATE as Linux prints it: what is masked is a capital letter.
        off = r"NMI backtrace for cpu 2\n(?:.*\n){1,12}?.*pstate: [0-9a-f]+ \([nN][zZ][cC][vV] [dD][aA]I"
        assert re.search(off, log), log[-3000:]
        after = [pe["calls"].get("SDEI_EVENT_SIGNAL", 0) for pe in guest.status()["pes"]]
        assert after[0] - before[0] == CPUS - 1, "one signal for each other vCPU"
        found = guest.nmi(1, by="software")
        assert (found.by, found.event, found.vcpu) == ("software", 0, 1)
        assert guest.run("true").status == 0, "an NMI that nobody asked for is no backtrace and no crash"


def test_a_vcpu_with_interrupts_off_is_stopped_by_event_0() -> None:
    """It hangs for good: Linux first waits a million times for a microsecond, each of which is longer here."""
    with Guest(replace(LINUX, on_panic="continue")) as guest:
        with_module(guest)
        before = guest.console_text.end
        with pytest.raises(GuestPanicError, match="sysrq triggered crash"):
            shell(guest, f"taskset 1 sh -c 'echo hang 2 >{CONTROL}; echo c >/proc/sysrq-trigger'")
        guest.console_text.search("SMP: retry stop with SDEI NMI for CPUs 2", before, 120)
        assert not re.search("failed to stop secondary CPUs", "\n".join(guest.console_text.last_lines(60)))


def test_agdi_panics_it() -> None:
    """By Linux's own driver, on a vCPU whatever it is at."""
    with Guest(LINUX) as guest:
        guest.wait_shell()
        assert "agdi" in registered(guest)
        found = guest.nmi()
        assert found.by == "agdi"
        assert guest.expect_panic(60).message == AGDI


def test_agdi_by_an_interrupt_panics_it(tmp_path: Path) -> None:
    """It waits while its vCPU has interrupts off, as the event does not."""
    events = tmp_path / "events.toml"
    events.write_text(f"[agdi]\ninterrupt = {SPI}\n\n{SOFTWARE}")
    with Guest(replace(LINUX, events=events)) as guest:
        guest.wait_shell()
        assert registered(guest) == {"software"}
        found = guest.nmi()
        assert (found.by, found.intid) == ("agdi-interrupt", SPI)
        assert guest.expect_panic(60).message == "Arm Generic Diagnostic Dump and Reset Interrupt event issued"


def with_files(guest: Guest, *, crash: bool = False) -> None:
    """Put a program into the guest that loads its own kernel and files again, by kexec_file_load(2)."""
    guest.wait_shell()
    shell(guest, "dmesg -n 1; cd /; find . -xdev | grep -v '^./boot' | cpio -o -H newc >/boot/initrd 2>/dev/null; cd")
    words = [word for word in shell(guest, "cat /proc/cmdline").split() if not word.startswith("crashkernel=")]
    put(guest, "/bin/next", kexec_file_a64(IMAGE, "/boot/initrd", " ".join(words), crash=crash))
    shell(guest, "chmod 755 /bin/next")


def next_kernel(guest: Guest, before: int) -> str:
    """The log of the kernel that has begun since `before`."""
    guest.console_text.search("qemu-sdei:[0-9a-f]+:shell", before, 120)
    log = shell(guest, "dmesg -n 1; dmesg")
    status = guest.status()
    assert (status["epoch"], status["kernels"], guest.resets) == (1, 2, [])
    return log


def test_kexec_file_load_starts_a_kernel_that_takes_nmis() -> None:
    with Guest(replace(LINUX, files={IMAGE: own_kernels.kernel(SERIES).image})) as guest:
        with_files(guest)
        before = guest.console_text.end
        guest.write("next\r")
        log = next_kernel(guest, before)
        assert USING in log
        assert registered(guest) == {"software", "agdi", "ghes"}
        for vcpu in range(CPUS):
            found = guest.nmi(vcpu, by="software")
            assert (found.by, found.vcpu) == ("software", vcpu)
        assert guest.run("true").status == 0


def test_kexec_file_load_for_a_crash() -> None:
    """Linux itself makes the ELF header and the device tree; what follows is a capture kernel with all CPUs."""
    image = own_kernels.kernel(SERIES).image
    options = replace(LINUX, files={IMAGE: image}, memory="1G", append="crashkernel=256M", on_panic="continue")
    with Guest(options) as guest:
        with_files(guest, crash=True)
        shell(guest, "next")
        assert shell(guest, "cat /sys/kernel/kexec_crash_loaded") == "1"
        before = guest.console_text.end
        assert guest.nmi().by == "agdi"
        assert guest.expect_panic(60).message == AGDI
        log = next_kernel(guest, before)
        assert USING in log
        head = shell(guest, "dd if=/proc/vmcore bs=64k count=2 2>/dev/null | strings | grep -m 1 OSRELEASE")
        assert head == f"OSRELEASE={own_kernels.kernel(SERIES).description.release}"


def dumped(options: GuestOptions, path: Path) -> GuestOptions:
    return replace(options, kdump=True, vmcore=path, kdump_timeout=300)


def test_agdi_leaves_a_dump(tmp_path: Path) -> None:
    with Guest(dumped(LINUX, tmp_path / "core")) as guest:
        guest.wait_shell()
        assert guest.nmi().by == "agdi"
        found = guest.wait_vmcore(120)
    dump = Dump.read(found.path)
    assert dump.release == own_kernels.kernel(SERIES).description.release
    assert dump.crash is not None
    assert dump.crash.message == AGDI
    assert len(dump.cpus) == CPUS


def test_a_hard_lockup_leaves_a_dump_with_the_registers_of_who_hung(tmp_path: Path) -> None:
    """A vCPU notices that its neighbour takes no timer interrupt; for the dump that one is stopped by event 0."""
    with Guest(dumped(LINUX, tmp_path / "core")) as guest:
        with_module(guest)
        shell(guest, "sysctl -w kernel.hardlockup_panic=1 kernel.watchdog_thresh=2")
        guest.write(f"taskset 1 sh -c 'echo hang 2 >{CONTROL}'\r")
        found = guest.wait_vmcore(120)
    dump = Dump.read(found.path)
    assert dump.crash is not None
    assert dump.crash.message == "Hard LOCKUP"
    assert len(dump.cpus) == CPUS, "also of vCPU 2, which takes no interrupt"
    log = "\n".join(record.text for record in dump.log)
    assert "Watchdog detected hard LOCKUP on cpu 2" in log


def test_drgn_reads_a_dump_with_the_vmlinux_that_is_kept(tmp_path: Path) -> None:
    drgn = pytest.importorskip("drgn", reason="drgn is not here: pip install 'qemu-sdei[drgn]'")
    with Guest(dumped(LINUX, tmp_path / "core")) as guest:
        guest.wait_shell()
        guest.write("sh -c 'echo c >/proc/sysrq-trigger'\r")
        found = guest.wait_vmcore(120)
    program = drgn.Program()
    program.set_core_dump(str(found.path))
    program.load_debug_info([str(own_kernels.kernel(SERIES).vmlinux)])
    thread = program.crashed_thread()
    dump = Dump.read(found.path)
    assert dump.crash is not None
    assert (thread.object.comm.string_().decode(), thread.tid) == (dump.crash.comm, dump.crash.pid)
    assert "sysrq_handle_crash" in str(thread.stack_trace())
