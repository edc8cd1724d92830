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

SERIES: Final = "own-7.3"
CPUS: Final = 4
AGDI: Final = "Arm Generic Diagnostic Dump and Reset SDEI event issued"
CONTROL: Final = "/proc/sdei_test/control"

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("linux", "runtime"),
    pytest.mark.skipif(own_kernels.find(SERIES) is None, reason=own_kernels.not_built(SERIES)),
]

LINUX: Final = GuestOptions(series=SERIES, boot="acpi", smp=CPUS, client=True, stall_timeout=240, start_timeout=120)


def with_module(guest: Guest) -> None:
    """The client module, without any event: it can turn a vCPU's interrupts off."""
    guest.wait_shell()
    guest.sdei_client([], verbose=0)


def run(guest: Guest, command: str) -> str:
    """The output of a command that must not fail."""
    result = guest.run(command, 120)
    assert result.status == 0, f"{command}: {result.output}"
    return result.output


def registered(guest: Guest) -> set[str]:
    """Names of the events that the guest has registered."""
    events = guest.status()["events"]
    return {event["name"] for event in events if any(entry["registered"] for entry in event["instances"])}


def test_a_backtrace_comes_from_vcpus_with_interrupts_off() -> None:
    """sysrq-l asks all; Linux sends event 0, which the firmware delivers whatever is masked."""
    with Guest(LINUX) as guest:
        with_module(guest)
        assert "sdei_nmi: using SDEI cross-CPU NMI (SDEI_EVENT_SIGNAL, event 0)" in run(guest, "dmesg")
        assert "software" in registered(guest)
        before = [pe["calls"].get("SDEI_EVENT_SIGNAL", 0) for pe in guest.status()["pes"]]
        run(guest, f"echo irqs-off 2 5000000000 >{CONTROL}; taskset 1 sh -c 'echo l >/proc/sysrq-trigger'; sleep 1")
        log = run(guest, "dmesg")
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
    with Guest(replace(LINUX, on_panic="continue")) as guest:
        with_module(guest)
        before = guest.console_text.end
        with pytest.raises(GuestPanicError, match="sysrq triggered crash"):
            run(guest, f"echo irqs-off 2 9000000000 >{CONTROL}; taskset 1 sh -c 'echo c >/proc/sysrq-trigger'")
        guest.console_text.search("SMP: retry stop with SDEI NMI for CPUs 2", before, 60)
        assert not re.search("failed to stop secondary CPUs", "\n".join(guest.console_text.last_lines(60)))


def test_agdi_panics_it() -> None:
    """By Linux's own driver, on a vCPU whatever it is at."""
    with Guest(LINUX) as guest:
        guest.wait_shell()
        assert "agdi" in registered(guest)
        found = guest.nmi()
        assert found.by == "agdi"
        assert guest.expect_panic(60).message == AGDI


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
        run(guest, "sysctl -w kernel.hardlockup_panic=1 kernel.watchdog_thresh=2")
        guest.write(f"echo irqs-off 2 9900000000 >{CONTROL}\r")
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
