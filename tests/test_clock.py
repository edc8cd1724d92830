"""Nothing depends on the wall clock, which jumps: neither a wait nor an order of events asks it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ALLOWED = {
    "qemu_sdei/host/cache_index.py": "the age of a file, whose time stamp is of that clock as well",
    "qemu_sdei/host/apt.py": "the age of a file, whose time stamp is of that clock as well",
    "qemu_sdei/cli/snapshot_command.py": "a date is shown",
    "qemu_sdei/backend/loop/counter_clock.py": "KVM's cross timestamps are of that clock",
    "qemu_sdei/boundedlog.py": "a log says at what time of day a part of it came, for `logs --since`",
    "qemu_sdei/cli/logs_command.py": "`--since` is a time of day",
    "qemu_sdei/message_log.py": "a message is shown with its time",
    "qemu_sdei/cli/debug_log.py": "a message is shown with its time",
    "qemu_sdei/cli/event_lines.py": "what happens is shown with its time of day",
    "qemu_sdei/cli/status_command.py": "a look is shown with its time of day",
    "qemu_sdei/cli/top_watch.py": "a look is shown with its time of day",
    "qemu_sdei/ras/timestamps.py": "a time stamp of a record is read and written, none is asked for",
    "qemu_sdei/pytest_plugin/starting.py": "the time is set in a guest",
    "qemu_sdei/crash/run.py": "a report says on which day it was made",
    "qemu_sdei/backend/__main__.py": "a trace says at what time of day it began",
}
WALL = {
    ("time", "time"), ("time", "time_ns"), ("time", "localtime"), ("time", "gmtime"), ("time", "ctime"),
    ("time", "CLOCK_REALTIME"), ("datetime", "now"), ("datetime", "today"), ("datetime", "utcnow"), ("date", "today"),
    ("time", "strftime"),
}  # fmt: skip


def uses(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in WALL:
            yield f"{node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            yield f"{node.lineno}: from {node.module} import"


@pytest.mark.parametrize("package", ["qemu_sdei", "acpi", "compat"])
def test_nobody_asks_the_wall_clock(package: str) -> None:
    found = [
        f"{name}:{use}"
        for file in sorted((ROOT / package).rglob("*.py"))
        if (name := str(file.relative_to(ROOT))) not in ALLOWED
        for use in uses(file)
    ]
    assert not found


def test_what_is_allowed_is_there() -> None:
    for name in ALLOWED:
        assert list(uses(ROOT / name)), f"{name} asks it no more: take it off the list"
