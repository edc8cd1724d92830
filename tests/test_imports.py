"""Imports point one way (docs/internals.md), so that each room can be understood and tested without those above it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import qemu_sdei

ROOT = Path(__file__).resolve().parent.parent

RANK = {
    "acpi": -1,  # the folder acpi/ at the top: it knows nothing of the others
    "ras": 0,
    "smccc": 0,
    "sdei": 1,
    "boot": 2,
    "monitor": 2,
    "services": 2,
    "hypervisor": 3,
    "profiles": 3,
    "trace": 3,
    "explain": 4,
    "symbols": 4,
    "uefi": 4,
    "vmcore": 5,
    "views": 5,
    "backend.firmware": 6,
    "backend.reset": 7,
    "backend.loop": 8,
    "backend.control": 9,
    "backend.__main__": 10,
    "host": 11,
    "vm": 12,
    "tables": 13,
    "migration": 13,
    "saving": 14,
    "guest": 15,
    "machine": 16,
    "conformance": 16,
    "fuzzing": 16,
    "differential": 17,
    "crash": 17,
    "cli": 18,
    "pytest_plugin": 18,
    "scenarios": 19,
    "__main__": 19,
}
"""A room imports rooms of lower rank only, and never one of its own rank."""
COMMON = {
    "blobs",
    "bounded",
    "boundedlog",
    "codec",
    "compressed",
    "config",
    "durations",
    "errors",
    "fetching",
    "guest_identity",
    "guestbuild",
    "guestcompile",
    "idle_states",
    "json_schema",
    "jsonline",
    "locks",
    "message_log",
    "paths",
    "printable",
    "rundir",
    "rundir_base",
    "rundir_ended",
    "stopped",
    "untrusted_files",
}
"""Single modules that every room may import, and that import no room."""
DEPENDENCIES = {"elftools", "qemu", "rich", "shtab"}
OPTIONAL = {"qemu_sdei/views/perfetto.py": {"google", "perfetto"}}
"""What comes with an extra, and the one file that says what to install."""


def imports(file: Path, *, for_types: bool = True) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every module or object that `file` imports, wherever in it; `for_types`: also what only
    a type checker sees.
    """
    tree = ast.parse(file.read_text(), str(file))
    apart: set[ast.AST] = set()
    for node in ast.walk(tree):
        if not for_types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            apart.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in apart:
            continue
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
    """Of `qemu_sdei.ROOM...` the room, of anything else "". The backend has rooms of its own."""
    parts = name.split(".")
    if parts[0] != "qemu_sdei" or len(parts) < 2:
        return ""
    return ".".join(parts[1:3]) if parts[1] == "backend" else parts[1]


@pytest.mark.parametrize("file", modules("qemu_sdei"), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    own = room(".".join(file.relative_to(ROOT).with_suffix("").parts))
    if own == "__init__":
        pytest.skip("the package itself offers what its rooms have")
    if own == "backend.__init__":
        return
    wrong = []
    for line, name in imports(file):
        other = room(name)
        if not other or other == own or other in COMMON or other.startswith("__"):
            continue
        if own == "scenarios" and other in qemu_sdei.__all__:
            continue  # written as a user writes them, by the front door
        assert other in RANK, f"{file}:{line}: {name}: a room without a rank"
        if own in COMMON or RANK[other] >= RANK[own]:
            wrong.append(f"{file.relative_to(ROOT)}:{line}: {own} must not import {name}")
    assert not wrong, "\n".join(wrong)


def test_no_files_import_each_other_in_a_circle() -> None:
    """Inside a room too: what two files know of each other nobody can read alone. In the backend that holds for what
    they know of each other's types as well.
    """
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in modules("qemu_sdei")}
    needs = {
        name: {
            found
            for _, wanted in imports(file, for_types=name.startswith("qemu_sdei.backend."))
            if (found := wanted if wanted in names else wanted.rpartition(".")[0]) in names and found != name
        }
        for name, file in names.items()
        if file.name != "__init__.py"  # a package offers what is in it
    }
    left = dict(needs)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left, "imported in a circle, or by somebody who is: " + ", ".join(sorted(left))


@pytest.mark.parametrize("file", modules("acpi"), ids=lambda file: str(file.relative_to(ROOT)))
def test_acpi_stands_alone(file: Path) -> None:
    for line, name in imports(file):
        ours = name.startswith("qemu_sdei.acpi.")
        assert ours or name.split(".")[0] in {"__future__"} | set(sys.stdlib_module_names), f"{file}:{line}: {name}"


@pytest.mark.parametrize("file", modules("qemu_sdei"), ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_imported_is_a_declared_dependency(file: Path) -> None:
    for line, name in imports(file):
        top = name.split(".")[0]
        known = {"qemu_sdei"} | DEPENDENCIES | set(sys.stdlib_module_names)
        known |= OPTIONAL.get(str(file.relative_to(ROOT)), set())
        if file.parent.name in ("pytest_plugin", "scenarios"):
            known.add("pytest")
        assert top in known, f"{file}:{line}: {name} is not among the dependencies in pyproject.toml"


@pytest.mark.parametrize("file", modules("qemu_sdei/sdei"), ids=lambda file: str(file.relative_to(ROOT)))
def test_the_sdei_core_has_no_way_to_do_input_or_output(file: Path) -> None:
    impure = {"asyncio", "io", "mmap", "multiprocessing", "os", "random", "secrets", "select", "selectors", "socket"}
    impure |= {"subprocess", "threading", "time"}
    for line, name in imports(file):
        assert name.split(".")[0] not in impure, f"{file}:{line}: {name} in the pure core"
