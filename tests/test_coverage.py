"""The unit tests take most branches of the packages that decide: the floors are in scripts/coverage.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_package_is_below_its_floor() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / "coverage.py"], capture_output=True, text=True, timeout=1700, check=False
    )
    assert result.returncode == 0, "\n" + result.stdout + result.stderr
