"""Measures which branches the unit tests take, and compares with the floors: `scripts/coverage.py`.

Other arguments go to pytest. Run by the Python that has the packages of requirements/test.txt (`.venv/bin/python`);
`scripts/test --all` does it too. Exit code 1: a test failed, or a package is below its floor. No test that boots a
guest is counted: what only a guest reaches, nobody looks at in the inner loop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
FLOORS: Final = {
    "acpi": 95.0,
    "qemu_sdei/sdei": 95.0,
    "qemu_sdei/services": 98.0,
    "qemu_sdei/smccc": 98.0,
    "qemu_sdei/migration": 95.0,
}
"""Per cent of the branches of a package."""
_FOLDERS: Final = ("acpi", "sdei", "services", "smccc", "backend", "boot", "migration", "saving")
TESTS: Final = tuple(f"tests/{folder}" for folder in _FOLDERS)
"""Where the packages are tested."""
_SHOWN: Final = 8
"""Files of a package that is below its floor."""


def measured(arguments: list[str], data: Path) -> tuple[int, dict[str, Any]]:
    """Run the tests. Returns pytest's exit code, and coverage's report of each file."""
    report = data / "report.json"
    packages = [f"--cov={package}" for package in FLOORS]
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-m", "not (guest or slow)", *TESTS, *packages),
        *("--timeout=600", "--cov-branch", f"--cov-report=json:{report}", "--cov-report=", *arguments),
    ]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"COVERAGE_FILE": str(data / "data")}, check=False)
    return done.returncode, json.loads(report.read_text())["files"] if report.exists() else {}


def compared(files: dict[str, Any]) -> bool:
    """Print a line a package, and what is missing below a floor. Returns whether all are above."""
    fine = True
    for package, floor in FLOORS.items():
        taken, missing = Counter[str](), Counter[str]()
        for name, file in files.items():
            if Path(name).is_relative_to(package):
                taken[name] = file["summary"]["covered_branches"]
                missing[name] = file["summary"]["num_branches"] - taken[name]
        of = taken.total() + missing.total()
        share = 100 * taken.total() / of if of else 0.0
        enough = share >= floor
        fine &= enough
        print(f"{package:22} {share:5.1f} % of {of} branches, floor {floor:g} %{'' if enough else ': TOO FEW'}")
        for name, count in missing.most_common(0 if enough else _SHOWN):
            lines = ", ".join(f"{start} to {end}" for start, end in files[name]["missing_branches"])
            print(f"    {name}: {count} not taken (line to line; negative: the end of a function): {lines}")
    return fine


def main(arguments: list[str]) -> int:
    """Measure and compare. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-coverage-") as directory:
        code, files = measured(arguments, Path(directory))
    return code or (0 if compared(files) else 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
