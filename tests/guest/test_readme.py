"""The README's three uses, typed as they are printed: what comes is what the README shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.guest.guests import check_nothing_left

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.usefixtures("linux")]

README = Path(__file__).resolve().parents[2] / "README.md"
USES = re.findall(r"^### (.+?)\n(.*?)(?=^##)", README.read_text(), re.M | re.S)
TERMINAL = "# terminal 1"
LIMIT = 280.0
"""Seconds for a command: most of it is a guest that boots on a busy host."""


def typed(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a text, with the lines that it is shown to print."""
    block: tuple[str, list[str]] | None = None
    for line in [*text.splitlines(), "    $ "]:
        if line.startswith("    $ "):
            if block is not None:
                yield block
            block = (line.removeprefix("    $ "), [])
        elif line.startswith("    ") and block is not None:
            block[1].append(line.removeprefix("    "))


def general(line: str) -> str:
    """A line without what differs from run to run: numbers, places in the code, the width of columns."""
    line = re.sub(r"pc=\S+( EL[0-3])?", "pc", line)  # where the event found the vCPU
    line = re.sub(r" +\(\+-[^)]*\)$", "", line)  # how far the time may be off
    return " ".join(re.sub(r"(0x)?[0-9a-f]*[0-9][0-9a-f]*(\.[0-9]+)?", "N", line).split())


def check(command: str, shown: list[str], printed: str) -> None:
    """What is shown was printed, line after line; `...` is anything."""
    lines = iter([general(line) for line in printed.splitlines()])
    for line in shown:
        if line.strip() not in ("", "..."):  # `any` goes on where the line before was found
            assert any(general(line) == other for other in lines), f"{command}: not printed: {line}\n{printed}"


def shell(tmp_path: Path, runtime: Path) -> dict[str, str]:
    """The environment of a terminal in which `. .venv/bin/activate` was said."""
    directory = tmp_path / "bin"
    directory.mkdir()
    program = directory / "qemu-sdei"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m qemu_sdei "$@"\n')
    program.chmod(0o755)
    return os.environ | {"PATH": f"{directory}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(runtime), "TERM": "dumb"}


@pytest.mark.timeout(900)
def test_the_three_uses(tmp_path: Path, runtime: Path) -> None:
    assert len(USES) == 3
    env = shell(tmp_path, runtime)
    terminals: list[pexpect.spawn[str]] = []
    try:
        for _, text in USES:
            for command, shown in typed(text):
                if TERMINAL in command:
                    terminal = pexpect.spawn("/bin/sh", ["-c", command], env=env, encoding="utf-8", timeout=LIMIT)
                    terminals.append(terminal)
                    terminal.expect("guest# ")
                    continue
                result = subprocess.run(
                    ["/bin/sh", "-c", command],
                    env=env,
                    cwd=tmp_path,
                    text=True,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    timeout=LIMIT,
                )
                assert result.returncode == 0, f"{command}\n{result.stdout}"
                check(command, shown, result.stdout)
        for terminal in terminals:
            terminal.expect(pexpect.EOF)
    finally:
        for terminal in terminals:
            terminal.close(force=True)
    check_nothing_left(runtime)
