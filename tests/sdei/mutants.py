"""Deliberate faults in the SDEI core, and what catches them: `python -m tests.sdei.mutants [NAME...]`.

Each mutant is one replacement in one source file of a copy of the package. A fault that neither the scenarios nor the
model notices is a hole in the tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TIMEOUT = 240
STAGES = (
    ("scenarios", ["tests/sdei", "--deselect", "tests/sdei/test_model.py", "--ignore", "tests/sdei/test_mutants.py"]),
    ("model", ["tests/sdei/test_model.py"]),
)
"""In this order; the second is only asked when the first saw nothing."""


class Mutant(NamedTuple):
    """A fault: in `file` of `qemu_sdei/sdei`, `new` in place of `old`, which occurs once."""

    name: str
    file: str
    old: str
    new: str


class Verdict(NamedTuple):
    """What became of it: `by` is the stage that caught it, or None."""

    mutant: Mutant
    by: str | None
    seconds: float


MUTANTS = tuple(Mutant(**entry) for entry in tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["mutant"])

SAMPLE = ("rm-pe-ignored", "listens-while-pending")
"""One that scenarios catch and one for the model too: the normal suite's share."""


def patched(mutant: Mutant, source: str) -> str:
    """The source with the fault in it.

    Raises:
        ValueError: the source has changed: `old` does not occur exactly once.
    """
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} has {source.count(mutant.old)} of {mutant.old!r}")
    return source.replace(mutant.old, mutant.new)


def try_mutant(mutant: Mutant, stages: tuple[str, ...] = ("scenarios", "model")) -> Verdict:
    """Run the tests over a copy of the package with the fault. A run that does not end is a fault that was noticed."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-mutant-") as name:
        folder = Path(name)
        ignore = shutil.ignore_patterns("__pycache__", ".hypothesis")
        shutil.copytree(ROOT / "qemu_sdei", folder / "qemu_sdei", ignore=ignore)
        shutil.copytree(ROOT / "tests" / "sdei", folder / "tests" / "sdei", ignore=ignore)
        (folder / "tests" / "__init__.py").touch()
        (folder / "docs" / "reference").mkdir(parents=True)
        path = folder / "qemu_sdei" / "sdei" / mutant.file
        path.write_text(patched(mutant, path.read_text()))
        # The table's printed form would notice a changed row, but not understand it.
        page = subprocess.run(
            [sys.executable, "-m", "qemu_sdei.sdei.document"], cwd=folder, capture_output=True, text=True, check=False
        )
        (folder / "docs" / "reference" / "sdei-states.md").write_text(page.stdout)
        environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        for stage, arguments in STAGES:
            if stage not in stages:
                continue
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                "--hypothesis-seed=0",
                *arguments,
            ]
            try:
                done = subprocess.run(
                    command, cwd=folder, env=environ, capture_output=True, timeout=TIMEOUT, check=False
                )
            except subprocess.TimeoutExpired:
                return Verdict(mutant, f"{stage}: no end", time.monotonic() - start)
            if done.returncode == 1:
                return Verdict(mutant, stage, time.monotonic() - start)
            if done.returncode != 0:
                raise RuntimeError(f"{mutant.name}: pytest ended with {done.returncode}: {done.stdout[-500:]!r}")
    return Verdict(mutant, None, time.monotonic() - start)


def row(verdict: Verdict) -> str:
    """A line of the table."""
    return f"{verdict.mutant.name:40} {verdict.by or 'NOT CAUGHT':14} {verdict.seconds:6.1f} s"


def main(names: list[str]) -> int:
    """Print the table. Returns the number of mutants that nothing caught."""
    stages = ("model",) if "--model" in names else ("scenarios", "model")
    names = [name for name in names if name != "--model"]
    missed = 0
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    for mutant in chosen:
        verdict = try_mutant(mutant, stages)
        print(row(verdict), flush=True)
        missed += verdict.by is None
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    return missed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 100))
