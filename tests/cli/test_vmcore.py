"""`qemu-sdei vmcore`: what people and programs are told of a crash dump."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.vmcore.samples import Log, vmcore

LINES = [
    "a\x1b[2Jb",
    "Kernel panic - not syncing: no \x1b]0;title\x07good",
    "CPU: 1 PID: 77 Comm: e\x1bvil Not tainted 6.1.0-test #1",
    "Bye!",
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vmcore"
    path.write_bytes(vmcore(Log(LINES)))
    return path


def test_people_are_told_who_panicked(command: Command, file: Path) -> None:
    done = command("vmcore", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Linux 6.1.0-test, 0 MiB of memory")
    assert lines[1] == "crashed: 2026-11-30 14:21:06 (UTC, by the guest's clock)"
    assert lines[2] == "panic: no \\x1b]0;title\\x07good"
    assert lines[3] == "by: vCPU 1, PID 77, e\\x1bvil"
    assert "*  1    77   ffff800000002004  ffff800000001000" in done.stdout
    assert lines[-1] == "[    3.001500] Bye!"


def test_programs_are_told_all(command: Command, file: Path) -> None:
    found = json.loads(command("vmcore", "--json", str(file)).stdout)
    assert found["crash"] == {"message": "no \x1b]0;title\x07good", "vcpu": 1, "pid": 77, "comm": "e\x1bvil"}
    assert [cpu["crashed"] for cpu in found["cpus"]] == [False, True]
    assert [record["text"] for record in found["log"]] == LINES
    assert command("vmcore", "--log", str(file)).stdout.splitlines()[3] == "[    3.001500] Bye!"


def test_what_is_none_is_one_line(command: Command, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    done = command("vmcore", str(file))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "is cut short" in done.stderr
