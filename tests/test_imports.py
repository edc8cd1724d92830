"""Imports point one way (docs/internals.md), so that each room can be understood and tested without those above it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

RANK = {
    "smccc": 0,
    "sdei": 1,
    "boot": 2,
    "monitor": 2,
    "services": 2,
    "backend": 3,
    "migration": 4,
    "machine": 5,
    "conformance": 6,
    "cli": 7,
    "__main__": 8,
}
"""A room imports rooms of lower rank only, and never one of its own rank."""
COMMON = {
    "blobs",
    "bounded",
    "boundedlog",
    "config",
    "errors",
    "fetching",
    "guestbuild",
    "locks",
    "paths",
    "printable",
    "rundir",
    "stopped",
}
"""Single modules that every room may import, and that import no room."""
DEPENDENCIES = {"qemu", "rich", "shtab"}


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every module or object that `file` imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are written in full"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room(name: str) -> str:
    """Of `qemu_sdei.ROOM...` the room, of anything else ""."""
    parts = name.split(".")
    return parts[1] if parts[0] == "qemu_sdei" and len(parts) > 1 else ""


@pytest.mark.parametrize("file", modules("qemu_sdei"), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    own = room(".".join(file.relative_to(ROOT).with_suffix("").parts))
    if own == "__init__":
        pytest.skip("the package itself offers what its rooms have")
    wrong = []
    for line, name in imports(file):
        other = room(name)
        if not other or other == own or other in COMMON or other.startswith("__"):
            continue
        assert other in RANK, f"{file}:{line}: {name}: a room without a rank"
        if own in COMMON or RANK[other] >= RANK[own]:
            wrong.append(f"{file.relative_to(ROOT)}:{line}: {own} must not import {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("file", modules("acpi"), ids=lambda file: str(file.relative_to(ROOT)))
def test_acpi_stands_alone(file: Path) -> None:
    for line, name in imports(file):
        top = name.split(".")[0]
        assert top in {"acpi", "__future__"} | set(sys.stdlib_module_names), f"{file}:{line}: {name}"


@pytest.mark.parametrize("file", modules("qemu_sdei"), ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_imported_is_a_declared_dependency(file: Path) -> None:
    for line, name in imports(file):
        top = name.split(".")[0]
        known = {"qemu_sdei", "acpi"} | DEPENDENCIES | set(sys.stdlib_module_names)
        assert top in known, f"{file}:{line}: {name} is not among the dependencies in pyproject.toml"


@pytest.mark.parametrize("file", modules("qemu_sdei/sdei"), ids=lambda file: str(file.relative_to(ROOT)))
def test_the_sdei_core_has_no_way_to_do_input_or_output(file: Path) -> None:
    impure = {"asyncio", "io", "mmap", "multiprocessing", "os", "random", "secrets", "select", "selectors", "socket"}
    impure |= {"subprocess", "threading", "time"}
    for line, name in imports(file):
        assert name.split(".")[0] not in impure, f"{file}:{line}: {name} in the pure core"
