"""The command as a user runs it: a process of its own, in a world of its own."""

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


@pytest.fixture
def command(runtime: Path) -> Command:
    """Run `qemu-sdei` with the given words and return what it said. Keywords: `input`, `env`, `timeout`."""

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
def inline(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    """The same in this process, for commands that start nothing: quick enough for long lists of bad input."""

    def run(
        *words: str, input: str = "", env: dict[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode())))
            capfdbinary.readouterr()
            status = main(list(words))
            sys.stdout.flush()
            out, err = capfdbinary.readouterr()
        return subprocess.CompletedProcess(words, status, out.decode(errors="replace"), err.decode())

    return run
