"""`qemu-sdei crash matrix`, as far as it needs no guest: a kernel that is not built here is no failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command


def test_a_kernel_that_is_not_built_is_cells_that_are_not_built(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qemu_sdei.crash.run.find_qemu", lambda: type("Qemu", (), {"version": (7, 2, 0)}))
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    words = ("crash", "matrix", "--series", "own-7.3", "--endings", "linux,off", "--firmware", "spec", "-q")
    shown = command(*words, env=cache)
    assert shown.returncode == 0, shown.stderr
    assert "scripts/crash-kernel builds it" in shown.stdout
    found = json.loads(command(*words, "--json", env=cache).stdout)
    assert found["counts"]["not built"] == len(found["cells"]) == 4
    assert found["kernels"][0]["missing"].startswith("kernel own-7.3 is not built")
