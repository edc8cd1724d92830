"""The suite on other firmware images, whatever they do: a table and an exit status, and nothing left.

`firmware.S` is a firmware of our own that does as little as a test wants; TF-A itself is not here.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from qemu_sdei.conformance import Outcome, Report, image, listing, run_image
from qemu_sdei.errors import UsageError
from qemu_sdei.guestcompile import find_compiler, flatten
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import command, runtime_directory

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64"),
]
needs_gcc = pytest.mark.skipif(
    (found := find_compiler()) is None or found.is_clang, reason="no GCC for AArch64, with its own assembler"
)
OPTIONS = GuestOptions(smp=1, memory="128M")
SLOW = 5.0
"""Seconds of silence for which a test waits where it expects them."""


def firmware(folder: Path, *flags: str) -> Path:
    """An image of firmware.S."""
    compiler = find_compiler()
    assert compiler is not None
    elf = folder / "firmware.elf"
    words = [compiler.path, "-nostdlib", "-static", "-Wl,-Ttext=0,--build-id=none", "-march=armv8-a", *flags]
    subprocess.run([*words, "-o", elf, Path(__file__).parent / "firmware.S"], check=True, timeout=60)
    path = folder / "firmware.bin"
    path.write_bytes(flatten(elf.read_bytes()))
    return path


def check_all_failed(report: Report, reason: str) -> None:
    """Every selected scenario is there, and has failed for the same reason."""
    assert [r.number for r in report.results] == [s.number for s in listing.builtin()]
    assert {r.outcome for r in report.results} == {Outcome.FAIL}
    ended = "the scenario did not end: the conformance guest ended before a scenario: "
    assert {r.reason for r in report.results} == {ended + reason}
    assert not report.ok


@pytest.mark.parametrize("kind", ["random", "zeros", "one byte"])
def test_an_image_of_garbage(tmp_path: Path, kind: str) -> None:
    content = {"random": random.Random(5).randbytes(1 << 16), "zeros": bytes(1 << 16), "one byte": b"\xff"}[kind]
    (tmp_path / "image").write_bytes(content)
    report = run_image(tmp_path / "image", OPTIONS, entry=image.ENTRY, stall=1.0)
    check_all_failed(report, "nothing for 1 s")
    assert report.starts == 1


@needs_gcc
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["-DHANGS"], "nothing for 1 s"),
        (["-DPOWERS_OFF"], "the machine was powered off or reset"),
        (["-DRESETS"], "the machine was powered off or reset"),
        (["-DPRINTS", '-DWORDS="x"'], "nothing for 1 s"),
        (["-DPRINTS", r'-DWORDS="# y\n"'], "nothing for 1 s"),
        (["-DPRINTS", r'-DWORDS="FAIL: CPU 0: x\n"'], "FAIL: CPU 0: x"),
    ],
)
def test_an_image_that_never_starts_the_guest(tmp_path: Path, flags: list[str], reason: str) -> None:
    check_all_failed(run_image(firmware(tmp_path, *flags), OPTIONS, entry=image.ENTRY, stall=1.0), reason)


@needs_gcc
def test_an_image_that_plays_the_guest_without_end(tmp_path: Path) -> None:
    """It begins scenarios for ever and asks for what nobody gives it: the time for all of it ends."""
    words = "#! run 1 - x # source x\\n#! failed 1\\n#! trigger 1 1\\n#! run 2 - x # source x\\n"
    path = firmware(tmp_path, "-DPRINTS", f'-DWORDS="{words}"')
    began = time.monotonic()
    report = run_image(path, OPTIONS, entry=image.ENTRY, scenarios="1-3", timeout=3.0)
    assert time.monotonic() - began < 60
    assert [(r.number, r.outcome) for r in report.results] == [(n, Outcome.FAIL) for n in (1, 2, 3)]


@needs_gcc
def test_a_firmware_whose_call_hangs(tmp_path: Path) -> None:
    """What is behind the scenario runs in a new guest."""
    path = firmware(tmp_path)
    report = run_image(path, OPTIONS, entry=image.ENTRY, scenarios="1,10,3", stall=SLOW)
    assert [(r.number, r.outcome.value) for r in report.results] == [(1, "ok"), (10, "not ok"), (3, "ok")]
    assert report.results[1].reason == f"the scenario did not end: nothing for {SLOW:g} s"
    assert report.starts == 2
    assert report.firmware[0] == "firmware: SDEI 1.0, vendor 0x0; 1 CPUs at EL1; bind slots: 0 private, 0 shared"


@needs_gcc
def test_another_place_for_the_guest(tmp_path: Path) -> None:
    path = firmware(tmp_path, "-DENTRY=0x43fff000")
    report = run_image(path, OPTIONS, entry=0x43FF_F000, scenarios="1")
    assert report.ok


@needs_gcc
def test_the_command(tmp_path: Path) -> None:
    path = firmware(tmp_path)
    with runtime_directory() as runtime:
        words = ("conformance", "-q", "--memory", "128M", "--smp", "1", "--filter", "1,2", "--json")
        done = command(runtime, *words, "--firmware-image", str(path))
        document = json.loads(done.communicate(timeout=100)[0])
        assert done.returncode == 0
        assert (document["passed"], document["failed"], document["skipped"]) == (2, 0, 0)


def test_what_cannot_be_an_image(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "big").touch()
    with (tmp_path / "big").open("r+b") as file:
        file.truncate(image.FLASH + 1)
    (tmp_path / "fine").write_bytes(b"x")
    for name, entry, words in (
        ("none", image.ENTRY, "firmware image .*none"),
        ("empty", image.ENTRY, "has 0 bytes: QEMU's flash takes 1 to 67108864"),
        ("big", image.ENTRY, "has 67108865 bytes"),
        (".", image.ENTRY, "firmware image"),
        ("fine", 0x4020_0004, "a multiple of 4096 in RAM"),
        ("fine", 0x4800_0000, "a multiple of 4096 in RAM"),
        ("fine", 0, "a multiple of 4096 in RAM"),
    ):
        with pytest.raises(UsageError, match=words):
            run_image(tmp_path / name, OPTIONS, entry=entry)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--firmware-entry", "0x40000000"], "--firmware-entry is for another firmware: give --firmware-image with it"),
        (["--firmware-image", "x", "--no-sdei"], "--no-sdei is for the Python firmware"),
        (["--firmware-image", "x", "--name", "y"], "--name is for the Python firmware"),
        (["--firmware-image", "x", "--firmware-entry", "y"], "--firmware-entry 'y': want an address"),
        (["--scenarios", "/nonexistent"], "/nonexistent is no folder with scenarios"),
        (["--timeout", "0"], "--timeout must be more than 0 seconds"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], message: str) -> None:
    with runtime_directory() as runtime:
        done = command(runtime, "conformance", "-q", *words)
        errors = done.communicate(timeout=60)[1].decode()
    assert done.returncode == 2
    assert message in errors
    assert errors.count("\n") == 1
