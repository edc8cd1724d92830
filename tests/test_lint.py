"""The linters are tests like any other: `scripts/test` is all that there is to run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "command",
    [("ruff", "check"), ("ruff", "format", "--check"), ("mypy", "--strict")],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_linter_has_nothing_to_say(command: tuple[str, ...]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=580, check=False
    )
    assert result.returncode == 0, "\n" + result.stdout + result.stderr


def shell_scripts() -> list[Path]:
    """The project's scripts for a shell: those that say so in their first line, and what these read in."""
    files = [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"]
    first = {file: file.read_bytes()[:40].partition(b"\n")[0] for file in files if file.is_file()}
    return sorted(file for file, line in first.items() if line.endswith((b"bash", b"/sh")) or file.suffix == ".sh")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck; scripts/test --all installs it")
def test_shellcheck_has_nothing_to_say() -> None:
    scripts = shell_scripts()
    assert {"run", "setup.sh", "test"} <= {file.name for file in scripts}
    result = subprocess.run(
        ["shellcheck", "-x", *scripts], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 0, "\n" + result.stdout
