"""The bare-metal guests on a QEMU without our firmware: they come up, use PSCI, GIC and timer, and fail cleanly.

QEMU answers PSCI itself here (HVC at EL1, SMC at EL2) and every SDEI call with NOT_SUPPORTED.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from qemu_sdei.guestbuild import Layout

QEMU = shutil.which("qemu-system-aarch64")
pytestmark = [pytest.mark.guest, pytest.mark.skipif(QEMU is None, reason="no qemu-system-aarch64")]

SHIM, COMMAND_LINE, ENTRY = 0x4010_0000, 0x4010_0100, 0x4020_0000


def shim(command_line: str, entry: int = ENTRY) -> bytes:
    """Code that does what the boot contract asks of the firmware: x1 = command line, then the guest's entry."""
    movz_lsl16, movk = 0xD2A0_0000, 0xF280_0000
    words = (
        movz_lsl16 | (COMMAND_LINE >> 16) << 5 | 1,  # movz x1, ..., lsl #16
        movk | (COMMAND_LINE & 0xFFFF) << 5 | 1,  # movk x1, ...
        movz_lsl16 | (entry >> 16) << 5 | 2,  # movz x2, ..., lsl #16
        movk | (entry & 0xFFFF) << 5 | 2,  # movk x2, ...
        0xD61F_0040,  # br x2
    )
    return struct.pack("<5I", *words).ljust(COMMAND_LINE - SHIM, b"\0") + command_line.encode() + b"\0"


def run(
    folder: Path, name: str, command_line: str, *, machine: str = "", smp: int = 2, entry: int = ENTRY
) -> list[str]:
    """Runs a guest until it powers off; returns its console lines."""
    (folder / "shim").write_bytes(shim(command_line, entry))
    blob = Layout().data / f"{name}.bin"
    options = [f"virt,gic-version=3{machine}", "-cpu", "cortex-a72", "-smp", str(smp), "-m", "64"]
    options += ["-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"]
    options += ["-device", f"loader,file={folder}/shim,addr={SHIM:#x},cpu-num=0,force-raw=on"]
    options += ["-device", f"loader,file={blob},addr={entry:#x},force-raw=on"]
    done = subprocess.run(
        [QEMU or "", "-M", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


NO_SDEI = "SDEI_VERSION: expected version 1.x, got -1 (NOT_SUPPORTED): this machine's firmware has no SDEI"


@pytest.mark.parametrize(
    ("machine", "words"),
    [("", "conduit=hvc"), (",virtualization=on", ""), (",virtualization=on", "conduit=smc smp=4")],
    ids=["EL1-HVC", "EL2-SMC", "EL2-four-CPUs"],
)
def test_selftest_comes_up_and_fails_cleanly(tmp_path: Path, machine: str, words: str) -> None:
    """It gets to its first step, so every CPU was started and took a timer interrupt."""
    cpus = 4 if "smp=4" in words else 2
    lines = run(tmp_path, "selftest", words, machine=machine, smp=cpus)
    assert lines[1] == f"    NR_VCPUS: {cpus}    SDEI Event: 0x00000000"
    assert "--- VERSION" in lines
    assert [line.split(": ", 2)[2] for line in lines if line.startswith("FAIL: CPU ")] == [NO_SDEI]
    assert lines[-2:] == ["    Result: FAIL", ""]


@pytest.mark.parametrize("mode", ["hot", "cold", "signal", "idle", "storm"])
def test_bench_without_sdei_fails_cleanly(tmp_path: Path, mode: str) -> None:
    lines = run(tmp_path, "bench", f"mode={mode} conduit=hvc")
    assert lines == ["FAIL: CPU 0: SDEI_VERSION: expected 0 (SUCCESS), got -1 (NOT_SUPPORTED)"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "mode=loud",
            "mode=loud: want hot, cold, signal, idle, storm, call, hostile, bound, fuzz, journey, dirty, deaf, "
            "registers, calls, wedge, services or ready",
        ),
        ("mode=hot cuont=5", "unknown word 'cuont' on the command line"),
        ("mode=hot count=0", "count=0: want a number from 1 to 1000000000"),
        ("mode=hot count=99999999999999999999999", "count=99999999999999999999999: want a number from 1 to 1000000000"),
        ("mode=hot count=0x", "count=0x: want a number from 1 to 1000000000"),
        ("mode=hot count=12a", "count=12a: want a number from 1 to 1000000000"),
        ("mode=call a1=0x10000000000000000", "a1=0x10000000000000000: want a number from 0 to 18446744073709551615"),
        ("mode=call a1=18446744073709551616", "a1=18446744073709551616: want a number from 0 to 18446744073709551615"),
        ("mode=hot smp=17", "smp=17: want a number from 1 to 16"),
        ("x" * 300, "command line of more than 255 characters"),
        ("a " * 20, "command line of more than 16 words"),
    ],
)
def test_bad_command_line(tmp_path: Path, words: str, message: str) -> None:
    lines = run(tmp_path, "bench", "conduit=hvc " + words)
    assert f"FAIL: CPU 0: {message}" in lines


@pytest.mark.parametrize("number", ["0xfffffffffffffff1", "0XFFFFFFFFFFFFFFF1", "18446744073709551601"])
def test_numbers_of_64_bits(tmp_path: Path, number: str) -> None:
    lines = run(tmp_path, "bench", f"conduit=hvc mode=call function=0x84000000 a2={number}")
    assert lines[-1].endswith(" x2=0xfffffffffffffff1 x3=0x0"), lines


@pytest.mark.parametrize("entry", [0x4020_1000, 0x4100_0000, 0x43F0_0000])
def test_a_flat_guest_runs_anywhere_in_ram(tmp_path: Path, entry: int) -> None:
    lines = run(tmp_path, "bench", "conduit=hvc mode=loud", entry=entry)
    assert [line for line in lines if line.startswith("FAIL: CPU 0: mode=loud: want hot, ")] == lines


def test_cpu_that_does_not_exist(tmp_path: Path) -> None:
    lines = run(tmp_path, "selftest", "conduit=hvc smp=3")
    assert "FAIL: CPU 0: PSCI CPU_ON: expected 0 (SUCCESS), got -2 (INVALID_PARAMETERS)" in lines


def test_exception_is_reported_not_a_hang(tmp_path: Path) -> None:
    """Without HVC or EL3 an SMC is undefined here: the vectors say where, and the guest still powers off."""
    lines = run(tmp_path, "selftest", "conduit=smc")
    assert any(line.startswith("FAIL: CPU 0: exception at vector 4: ESR 0x2000000 ELR 0x402") for line in lines)
