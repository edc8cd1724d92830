"""Deliberate faults in the SDEI core and its owner, and what catches them:

    python -m tests.sdei.mutants [--model | --small-model | --fuzz] [NAME...]

Each mutant is one replacement in one source file of a copy of the package. A fault that neither the scenarios nor the
model notices is a hole in the tests. What would one of them find if there were no other? With `--model` only the model
is asked, with `--small-model` the model with as many examples as by `scripts/test` without `--all`, with `--fuzz` only
the fuzzer.
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
TIMEOUT = 120
"""Seconds for one stage of one fault; without a fault the model takes some 15."""
_PYTEST = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "--hypothesis-seed=0")
STAGES = {
    "scenarios": (
        *(*_PYTEST, "tests/sdei", "--deselect", "tests/sdei/test_model.py", "--ignore", "tests/sdei/test_mutants.py"),
        *("tests/backend/test_suspend.py", "tests/backend/test_no_sdei.py"),
    ),
    "model": (*_PYTEST, "tests/sdei/test_model.py", "--hypothesis-profile=score"),
    "small-model": (*_PYTEST, "tests/sdei/test_model.py", "--hypothesis-profile=score-tests"),
    "fuzz": ("-m", "tests.fuzz.fuzzer", "--seed", "1", "--calls", "100000"),
}
"""In this order; each is only asked when those before it saw nothing."""
OURS = ("scenarios", "model")
"""What a fault is put before when nothing else is said."""


class Mutant(NamedTuple):
    """A fault: `new` in place of `old`, which occurs once in `file`: of `qemu_sdei/sdei`, or a path in `qemu_sdei`."""

    name: str
    file: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """The source file, below `qemu_sdei`."""
        return Path(self.file) if "/" in self.file else Path("sdei", self.file)


class Verdict(NamedTuple):
    """What became of it: `by` is the stage that caught it, or None."""

    mutant: Mutant
    by: str | None
    seconds: float


MUTANTS = tuple(Mutant(**entry) for entry in tomllib.loads(Path(__file__).with_suffix(".toml").read_text())["mutant"])

SAMPLE = "rm-pe-ignored"
"""The normal suite's share: it shows that a fault gets in and is noticed."""


def patched(mutant: Mutant, source: str) -> str:
    """The source with the fault in it.

    Raises:
        ValueError: the source has changed: `old` does not occur exactly once.
    """
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} has {source.count(mutant.old)} of {mutant.old!r}")
    return source.replace(mutant.old, mutant.new)


def try_mutant(mutant: Mutant, stages: tuple[str, ...] = OURS) -> Verdict:
    """Run the tests over a copy of the package with the fault. A run that does not end is a fault that was noticed."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-mutant-") as name:
        folder = Path(name)
        ignore = shutil.ignore_patterns("__pycache__", ".hypothesis")
        shutil.copytree(ROOT / "qemu_sdei", folder / "qemu_sdei", ignore=ignore)
        for tests in ("sdei", "backend", "fuzz"):
            shutil.copytree(ROOT / "tests" / tests, folder / "tests" / tests, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", folder)
        shutil.copy(ROOT / "tests" / "examples.py", folder / "tests")
        (folder / "tests" / "__init__.py").touch()
        (folder / "docs" / "reference").mkdir(parents=True)
        path = folder / "qemu_sdei" / mutant.path
        path.write_text(patched(mutant, path.read_text()))
        # The table's printed form would notice a changed row, but not understand it.
        page = subprocess.run(
            [sys.executable, "-m", "qemu_sdei.sdei.document"], cwd=folder, capture_output=True, text=True, check=False
        )
        (folder / "docs" / "reference" / "sdei-states.md").write_text(page.stdout)
        environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        for stage in stages:
            command = [sys.executable, *STAGES[stage]]
            try:
                done = subprocess.run(
                    command, cwd=folder, env=environ, capture_output=True, timeout=TIMEOUT, check=False
                )
            except subprocess.TimeoutExpired:
                return Verdict(mutant, f"{stage}: no end", time.monotonic() - start)
            if done.returncode == 1:
                return Verdict(mutant, stage, time.monotonic() - start)
            if done.returncode != 0:
                raise RuntimeError(f"{mutant.name}: {stage} ended with {done.returncode}: {done.stdout[-500:]!r}")
    return Verdict(mutant, None, time.monotonic() - start)


def row(verdict: Verdict) -> str:
    """A line of the table."""
    return f"{verdict.mutant.name:40} {verdict.by or 'NOT CAUGHT':14} {verdict.seconds:6.1f} s"


def main(names: list[str]) -> int:
    """Print the table. Returns the number of mutants that nothing caught."""
    asked = [name.removeprefix("--") for name in names if name.startswith("--")]
    if any(stage not in STAGES for stage in asked):
        sys.exit(f"python -m tests.sdei.mutants: the options are {', '.join(f'--{stage}' for stage in STAGES)}")
    stages = tuple(asked) or OURS
    names = [name for name in names if not name.startswith("--")]
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
