"""`explain` of real guests: each situation is got into by a guest, and named rightly; a healthy guest has
none; and of a guest whose processes do not answer it says what it can.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import signal
import struct
from pathlib import Path

import fastjsonschema
import pytest

from qemu_sdei.cli import main
from qemu_sdei.config import RAM_BASE
from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.explain.explanation import Explanation
from qemu_sdei.explain.explanation_schema import SCHEMA
from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.lines import lines
from qemu_sdei.guest.guest import Guest
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.vm.options import GuestOptions
from tests.guest.acpi_guest import area_of
from tests.guest.guests import until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("runtime")]

fits = fastjsonschema.compile(SCHEMA)

GHES = 0x324
CORRECTED = 1 << 4 | 2
"""Block status: one entry, corrected."""


def bench(words: str, *, smp: int = 2) -> Guest:
    return Guest(GuestOptions(kernel="builtin:bench", append=f"{words} smp={smp}", smp=smp, memory="128M"))


def wedged(guest: Guest, rules: set[str]) -> Explanation:
    """The explanation in which these are found, which takes a second: what lasts shorter is nothing unusual."""
    explanation = guest.explain()

    def found() -> bool:
        nonlocal explanation
        explanation = guest.explain()
        fits(json.loads(json.dumps(explanation.document())))
        return rules <= {finding.rule for finding in explanation.findings}

    until(f"{rules} found; the last was\n" + "\n".join(lines(explanation)), found, 15)
    return explanation


def only(explanation: Explanation) -> Finding:
    assert len(explanation.findings) == 1, "\n".join(lines(explanation))
    return explanation.findings[0]


SITUATIONS = [
    (1, "cpu-off-in-handler", Weight.WARNING, r"vCPU 1 went off inside an SDEI handler", r"CPU_ON for this vCPU"),
    (2, "handler-over-kexec", Weight.ERROR, r"vCPU 1 is still inside the handler of event 0x0", r"5\.1\.7"),
    (3, "priority-left-active", Weight.NOTE, r"went off inside an interrupt's handler", r"^$"),
    (4, "masked-for-ever", Weight.ERROR, r"SDEI_PE_MASK\(\) .*ago", r"SDEI_PE_UNMASK on vCPU 1"),
    (5, "unregister-pending", Weight.ERROR, r"cannot be unregistered while its handler runs on vCPU 1", r"on vCPU 1"),
    (6, "registered-over-kexec", Weight.ERROR, r"The kernel before has left event 0x0", r"SDEI_PRIVATE_RESET"),
    (7, "cpu-on-in-handler", Weight.ERROR, r"CPU_ON was asked for vCPU 1, which is inside an SDEI handler", r"CPU_OFF"),
    (10, "lost-over-suspend", Weight.ERROR, r"Event 0x0 \(software\) was lost over a suspend", r"SDEI_EVENT_REGISTER"),
    (11, "priority-left-active", Weight.ERROR, r"vCPU 1 takes no interrupt", r"ICC_EOIR1_EL1"),
    (12, "lost-over-suspend", Weight.WARNING, r"was re-enabled over a suspend", r"SDEI_EVENT_DISABLE"),
]
"""Number for the bench guest, rule, weight, what is said, what to do."""


@pytest.mark.parametrize(
    ("number", "rule", "weight", "says", "todo"), SITUATIONS, ids=[f"{n}-{rule}" for n, rule, *_ in SITUATIONS]
)
def test_a_situation_is_named(number: int, rule: str, weight: Weight, says: str, todo: str) -> None:
    with bench(f"mode=wedge n={number}") as guest:
        guest.expect("wedge: ready")
        if number == 4:
            assert guest.inject(0, 1).outcome == "queued"
        finding = only(wedged(guest, {rule}))
        assert (finding.rule, finding.weight) == (rule, weight)
        assert re.search(says, f"{finding.title}\n{finding.text}")
        assert re.search(todo, finding.todo)


def test_a_healthy_guest_has_no_findings() -> None:
    with bench("mode=wedge n=0", smp=4) as guest:
        guest.expect("wedge: ready")
        for vcpu in (0, 1):
            guest.inject(0, vcpu, wait=True)
        explanation = guest.explain()
        assert explanation.findings == ()
        assert not explanation.refusals
        assert [vcpu.where is not None and vcpu.where.el for vcpu in explanation.picture.vcpus[:2]] == [1, 1]
        assert explanation.history.complete


def test_a_backend_and_a_qemu_that_are_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    """State and findings are from the journal and the trace then; who is stopped is said, and how it is resumed."""
    with bench("mode=wedge n=5") as guest:
        guest.expect("wedge: ready")
        wedged(guest, {"unregister-pending"})
        backend, qemu = guest.backend_pid, guest.qemu_pid
        assert backend is not None
        assert qemu is not None
        os.kill(backend, signal.SIGSTOP)
        os.kill(qemu, signal.SIGSTOP)
        try:
            assert main(["explain", guest.name]) == 1
            text = " ".join(capsys.readouterr().out.split())
        finally:
            os.kill(qemu, signal.SIGCONT)
            os.kill(backend, signal.SIGCONT)
        assert f"`kill -CONT {backend}` resumes it" in text
        assert f"`kill -CONT {qemu}` resumes it" in text
        assert "cannot be unregistered while its handler runs on vCPU 1" in text
        assert "journal" in text
        only(wedged(guest, {"unregister-pending"}))


def test_a_run_whose_guest_hangs_says_what_was_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, runtime: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("guest.expect('wedge: ready')\nguest.expect('never', timeout=1.5)\n")
    words = ["--kernel", "builtin:bench", "--append", "mode=wedge n=7", "--memory", "128M", "--script", str(script)]
    assert main(["run", "-q", *words]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "console text 'never' did not come within 1.5 s" in said
    assert "what `qemu-sdei explain` says of it: - CPU_ON was asked for vCPU 1, which is inside an SDEI handler" in said


# ---- Linux


def fill(guest: Guest, address: int | None) -> None:
    """An error for the guest's only error source, which nobody has read; `address`: in its address register (None:
    the right one).
    """
    (source,) = area_of(guest).sources(MachineDescription.default().sources)
    assert source.read_ack is not None

    def at(place: int) -> int:
        return place - RAM_BASE

    block = struct.pack("<5I", CORRECTED, 0, 0, 72 + 16, 2) + bytes(72 + 16)
    with mmap.mmap(guest.placement.ram.fd, guest.placement.plan.ram_size) as ram:
        ram[at(source.block) : at(source.block) + len(block)] = block
        ram[at(source.read_ack) : at(source.read_ack) + 8] = bytes(8)
        wanted = source.block if address is None else address
        ram[at(source.address_register) : at(source.address_register) + 8] = wanted.to_bytes(8, "little")


def linux_guest(append: str = "") -> Guest:
    return Guest(GuestOptions(series="6.12", smp=2, ras=True, append=append))


@pytest.mark.usefixtures("linux")
def test_linux_is_healthy_and_does_not_acknowledge_an_error_that_it_does_not_find() -> None:
    with linux_guest() as guest:
        guest.wait_shell()
        guest.run("dmesg -n 1")
        guest.run("echo 0 >/sys/devices/system/cpu/cpu1/online; echo 1 >/sys/devices/system/cpu/cpu1/online")
        explanation = guest.explain()
        assert explanation.findings == (), "\n".join(lines(explanation))
        fill(guest, 0)
        assert guest.inject(GHES, 0, wait=True, timeout=30).outcome == "completed"
        finding = only(wedged(guest, {"ghes-not-acknowledged"}))
        assert finding.weight is Weight.ERROR
        assert "address register holds 0x0 in place of" in finding.text
        fill(guest, None)
        assert guest.inject(GHES, 0, wait=True, timeout=30).outcome == "completed"
        assert guest.explain().findings == ()


@pytest.mark.usefixtures("linux")
def test_linux_that_was_told_not_to_register_the_event_of_its_hest() -> None:
    with linux_guest("ghes.disable=1") as guest:
        guest.wait_shell()
        fill(guest, None)
        with pytest.raises(NotDeliveredError, match="not registered"):
            guest.inject(GHES, 0)
        finding = only(wedged(guest, {"hest-event-unregistered"}))
        assert finding.weight is Weight.ERROR
        assert "event 0x324 (ghes)" in finding.title
        assert "nobody will read it" in finding.text
