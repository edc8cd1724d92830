"""`import acpi`, as it was called before: for a release it gives the same modules, and says what to write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_former_name_warns_and_gives_the_same_modules() -> None:
    code = f"""
import sys
sys.path[:0] = [{str(ROOT / "compat")!r}, {str(ROOT)!r}]
import acpi.tables.hest
from acpi.parse import parse
import qemu_sdei.acpi.tables.hest
from qemu_sdei.acpi import parse as now
assert acpi.tables.hest is qemu_sdei.acpi.tables.hest and parse is now.parse
"""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "always::DeprecationWarning", "-c", code],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the package acpi is qemu_sdei.acpi since 0.2") == 1
    assert "<string>:4: DeprecationWarning" in done.stderr, "it names the line that imports it"
