"""The run that SDEI for KVM was announced with, live: `qemu-sdei demo` at a terminal, and the dump's registers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pexpect
import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.trace.reading import open_trace
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import check_nothing_left

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]

VCPU = 1
WORD = "[0-9a-f]{16}"
# In this order, each a line of its own.
LINES = [
    r"        NR_VCPUS: 2    SDEI Event: 0x00000000",
    r"        Version:              1\.1 \(vendor: 0x4b564d\)",
    r"        Handled:              Yes",
    r"        Status:               Registered-Enabled-Running",
    rf"        PC/PSTATE:            {WORD} {WORD}",
    r"        Result: OK",
    r"    psci: probing for conduit method from ACPI\.",
    r"    smp: Brought up 1 node, 6 CPUs",
    r"    refused: event 0x0 \(software\) is not registered on PE 1",
    r"    ACPI: SDEI 0x[0-9A-F]{16} 000024 \(v01 \S+ +\S+ +[0-9A-F]{8} \S+ +[0-9A-F]{8}\)",
    r"    sdei: SDEIv1\.1 \(0x4b564d\) detected in firmware\.",
    r"    SDEI TEST: Version 1\.1, Vendor 0x4b564d",
    r"    sdei_init: SDEI event \(0x0\) registered",
    r"    sdei_init: SDEI event \(0x0\) enabled",
    r"    '\S+' is '\S+' now: \d+ MiB sent in \d+ ms, .*",
    r"    =========== SDEI Event \(CPU#1\) ===========",
    r"    Event: 0000000000000000  Parameter: 00000000dabfdabf",
    rf"    PC:    {WORD}  PSTATE: {WORD}  SP: {WORD}",
    *[rf"    {title:8}( {WORD}){{4}}" for title in ["Regs:", *[""] * 6]],
    rf"    {'':8}( {WORD}){{3}}",
    *[rf"    {title:8}( {WORD}){{4}}" for title in ["Context:", *[""] * 3]],
    rf"    {'':8}( {WORD}){{2}}",
    r"    handler entered after \d+ µs, completed after \d+ µs",
    r"    QEMU ended: guest-shutdown, by the guest's own SYSTEM_OFF",
    r"  all of it in [0-9.]+ s",
]


def test_the_announced_run_at_a_terminal(runtime: Path) -> None:
    command = [sys.executable, "-m", "qemu_sdei", "demo"]
    with pexpect.spawn(command[0], command[1:], timeout=100, encoding="utf-8", dimensions=(50, 160)) as terminal:
        terminal.expect(pexpect.EOF)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(terminal.before))
    shown = iter(text.replace("\r", "\n").split("\n"))
    assert terminal.exitstatus == 0
    for line in LINES:  # `any` goes on where the line before was found
        assert any(re.fullmatch(line, text) for text in shown), f"not shown, or not there: {line}"
    check_nothing_left(runtime)


def test_the_dump_has_the_registers_that_the_backend_saw(runtime: Path, tmp_path: Path) -> None:
    """After a migration; the handler's own view, SDEI_EVENT_CONTEXT's and the printed one against the frame's."""
    trace = tmp_path / "trace"
    options = GuestOptions(boot="acpi", smp=6, topology="sockets=2,cores=3", client=True, trace=trace)
    with Guest(options) as guest:
        client = guest.sdei_client(events=[0])
        guest.migrate()
        guest.inject(0, VCPU, wait=True)
        record = client.record(cpu=VCPU)
        client.shell("echo flush >/proc/sdei_test/control")
        log = guest.run("dmesg").output
        guest.poweroff()
    with open_trace(trace) as reading:
        records = list(reading.records())
    (delivery,) = (number for number, seen in enumerate(records) if seen.get("cause") == "DISPATCH")
    assert (records[delivery]["event"], records[delivery]["vcpu"]) == (0, VCPU)
    saw = records[delivery - 1]  # the frame that ended in the handler
    assert (saw["type"], saw["kind"], saw["then"]) == ("frame", "kick", "handler")
    assert (record.pc, record.pstate, record.regs[:6]) == (saw["pc"], saw["pstate"], tuple(saw["x"]))
    assert record.context == record.regs[:18]
    dump = log[log.index("=== SDEI Event (CPU#1)") :]
    words = [int(word, 16) for word in re.findall(rf"\b{WORD}\b", dump)]
    assert words == [0, 0xDABFDABF, saw["pc"], saw["pstate"], record.sp, *record.regs, *record.context]
