"""The bare-metal guests on the Python firmware: the selftest's transcript, and a storm of calls on several CPUs."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import command

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64"),
]

# The transcript of KVM's SDEI series' own selftest, values that belong to a machine replaced by (patterns).
TRANSCRIPT = """\

    NR_VCPUS: 2    SDEI Event: 0x00000000

--- VERSION
    Version:              1.1 (vendor: 0x[0-9a-f]+)
--- FEATURES
    Shared event slots:   [0-9]+
    Private event slots:  [0-9]+
    Relative mode:        (Yes|No)
--- PRIVATE_RESET
--- SHARED_RESET
--- PE_UNMASK
--- EVENT_GET_INFO
    Type:                 Private
    Priority:             Normal
    Signaled:             Yes
--- EVENT_REGISTER
--- EVENT_ENABLE
--- EVENT_SIGNAL
    Handled:              Yes
    IRQ:                  No
    Status:               Registered-Enabled-Running
    PC/PSTATE:            [0-9a-f]{16} [0-9a-f]{16}
    Regs:                 [0-9a-f]{16} [0-9a-f]{16}
                          [0-9a-f]{16} [0-9a-f]{16}
--- PE_MASK
--- EVENT_DISABLE
--- EVENT_UNREGISTER

    Result: OK
"""


def console_of(options: GuestOptions) -> list[str]:
    """Runs a guest until it powers off; its console."""
    with Guest(options) as guest:
        off = guest.wait_off(60)
        console = guest.console
    assert off.guest, f"QEMU ended by {off.reason}, not by the guest"
    return console.replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize(
    ("cpu", "virtualization"), [("cortex-a72", False), ("cortex-a72", True), ("max", False)], ids=["EL1", "EL2", "max"]
)
def test_selftest_prints_the_transcript_of_the_kvm_series(cpu: str, virtualization: bool) -> None:
    lines = console_of(GuestOptions(kernel="builtin:selftest", memory="128M", cpu=cpu, virtualization=virtualization))
    wanted = TRANSCRIPT.splitlines()
    for line, want in zip(lines, wanted, strict=False):
        pattern = want.replace("(vendor: 0x[0-9a-f]+)", r"\(vendor: 0x[0-9a-f]+\)")
        assert re.fullmatch(pattern, line), f"{line!r} is not of the form {want!r}"
    assert lines[len(wanted) :] in ([], [""])


@pytest.mark.smoke
def test_selftest_on_four_cpus() -> None:
    lines = console_of(GuestOptions(kernel="builtin:selftest", append="smp=4", smp=4, memory="128M"))
    assert lines[1] == "    NR_VCPUS: 4    SDEI Event: 0x00000000"
    assert "    Result: OK" in lines


@pytest.mark.parametrize(("smp", "virtualization"), [(2, False), (2, True), (3, False)])
def test_storm_agrees_with_the_guests_own_model(smp: int, virtualization: bool) -> None:
    words = f"mode=storm count=3000 smp={smp}"
    lines = console_of(
        GuestOptions(kernel="builtin:bench", append=words, smp=smp, memory="128M", virtualization=virtualization)
    )
    result = re.fullmatch(r"storm: ok calls=(\d+) handled=(\d+)", lines[0])
    assert result, lines
    assert int(result[1]) > 3000 * smp
    assert int(result[2]) > 0


@pytest.mark.parametrize(
    ("words", "name"),
    [("mode=hot count=2000", "hot"), ("mode=cold count=50 gap_us=100", "cold"), ("mode=signal count=2000", "signal")],
)
def test_bench_prints_its_figures(words: str, name: str) -> None:
    lines = console_of(GuestOptions(kernel="builtin:bench", append=words, smp=1, memory="128M"))
    check_figures(lines[-1], name)


FIGURES = re.compile(r"(\w+): count=\d+ ticks=\d+ freq=\d+ median_ns=(\d+) p99_ns=(\d+) min_ns=(\d+) p10_ns=(\d+)")


def check_figures(line: str, name: str) -> None:
    match = FIGURES.fullmatch(line)
    assert match, line
    median, p99, least, p10 = map(int, match.groups()[1:])
    assert match[1] == name
    assert least <= p10 <= median <= p99


def test_all_calls_in_one_boot() -> None:
    """Of an event that SIGNAL refuses, what comes before that is measured, and then the guest fails."""
    calls = ["version", "features", "info", "register_unregister", "status", "disable_enable", "mask_unmask"]
    options = GuestOptions(kernel="builtin:bench", append="mode=calls count=0x80", smp=1, memory="128M")
    lines = console_of(options)
    assert len(lines) == len(calls) + 2
    for line, name in zip(lines, [*calls, "signal", "resets"], strict=True):
        check_figures(line, name)
    lines = console_of(dataclasses.replace(options, append="mode=calls count=0x80 event=0x100"))
    for line, name in zip(lines, calls, strict=False):
        check_figures(line, name)
    assert lines[len(calls)] == "FAIL: CPU 0: EVENT_SIGNAL to self: expected 0 (SUCCESS), got -2 (INVALID_PARAMETERS)"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("mode=hot count=100", 0),
        ("mode=nothing", 1),
        ("mode=storm count=10 private=0x3fff", 1),
        ("mode=bound refused=33", 1),
    ],
)
def test_a_failure_of_a_bare_metal_guest_is_an_exit_status(runtime: Path, words: str, status: int) -> None:
    done = command(runtime, "run", "-q", "--memory", "128M", "--kernel", "builtin:bench", "--append", words)
    output = done.communicate(timeout=100)[0].decode()
    assert done.returncode == status
    assert ("FAIL: " in output) == bool(status)


def test_idle_guest_handles_injections() -> None:
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", smp=2, memory="128M")
    with Guest(options) as guest:
        guest.expect("idle: ready", 30)
        for vcpu in (0, 1, 1, 0):
            assert guest.inject(0, vcpu, wait=True).outcome == "completed"
