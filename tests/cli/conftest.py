"""The command line: in this process, which takes milliseconds, or as a user runs it, in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei.cli import main

Command = Callable[..., "subprocess.CompletedProcess[str]"]
RawCommand = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def process(runtime: Path) -> Command:
    """Run `qemu-sdei` with the given words and return what it said. Keywords: `input`, `env`, `timeout`.

    Starts a Python: only for what `command` cannot see, such as the encoding of the output.
    """

    def run(
        *words: str, input: str = "", env: dict[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "qemu_sdei", *words],
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ | (env or {}),
            check=False,
        )

    return run


@pytest.fixture
def raw_command(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> RawCommand:
    """The same by `qemu_sdei.cli.main` in this process, and what it said as bytes. Keywords: `input`, `env`."""

    def run(*words: str, input: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode())))
            capfdbinary.readouterr()
            status = main(list(words))
            sys.stdout.flush()
            out, err = capfdbinary.readouterr()
        return subprocess.CompletedProcess(words, status, out, err)

    return run


@pytest.fixture
def command(raw_command: RawCommand) -> Command:
    """The same as text."""

    def run(*words: str, input: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        done = raw_command(*words, input=input, env=env)
        return subprocess.CompletedProcess(
            words, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode()
        )

    return run
