"""`-vv`: whoever has to find out why something failed sees what was said."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import guest_identity
from qemu_sdei.rundir import RunDirectory
from tests.cli.conftest import Command
from tests.library.test_control_client import Backend, result

LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (qmp|control|migration) \S")


def answered(request: dict[str, Any]) -> bytes:
    """A backend that has seen hostile text."""
    return result(request, protocol=1, pid=1, nr_cpus=1, name="a", epoch=1, said="\x1b]0;x\x07\x9b2J")


def test_messages_and_their_times(command: Command, runtime: Path) -> None:
    directory = RunDirectory.create("a")
    backend = Backend(directory.path / "control.sock", answered, guest_identity.read(directory.path))
    silent = command("status", "a")
    shown = command("status", "a", "-vv")
    backend.close()
    assert not LINE.search(silent.stderr)
    lines = [line for line in shown.stderr.splitlines() if LINE.match(line)]
    assert '-> {"id": 1, "cmd": "hello"}' in lines[0]
    assert "control backend of a <- " in lines[1]
    assert [line for line in shown.stderr.splitlines() if not LINE.match(line)] == silent.stderr.splitlines()
    directory.remove()


def test_a_terminal_obeys_none_of_it(runtime: Path) -> None:
    """And each line begins at the margin, also while a guest's console has the terminal in raw mode."""
    directory = RunDirectory.create("a")
    backend = Backend(directory.path / "control.sock", answered, guest_identity.read(directory.path))
    master, slave = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "qemu_sdei", "status", "a", "-vv"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave, timeout=60, check=False,
        )  # fmt: skip
        text = os.read(master, 1 << 16)
    finally:
        os.close(master)
        os.close(slave)
        backend.close()
    assert b"\\u001b]0;x" in text
    assert b"\x1b" not in text
    assert b"\x9b" not in text
    assert text.count(b"\r\r\n") >= 2  # the terminal has added one
    directory.remove()


@pytest.mark.parametrize("words", [["tables"], ["dt"], ["qemu-args"], ["completion"]])
def test_commands_without_a_guest_have_no_messages(command: Command, words: list[str]) -> None:
    assert "-vv" not in command(*words, "--help").stdout
    assert "-vv: also each message" in " ".join(command("migrate", "--help").stdout.split())
