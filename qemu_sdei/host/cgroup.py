"""What the control groups of this process leave it of memory (a container's limit, for example)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_V1_UNLIMITED: Final = 1 << 60
"""Version 1 says "no limit" by a number near 2^63."""


def available(root: Path = Path("/")) -> int | None:
    """Bytes of memory that the control groups leave, the tightest of all levels; None if there is no limit to be seen.

    Page cache that can be dropped counts as free (`inactive_file`), as the kernel drops it first. `root` is for tests.
    Source: Linux's Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
    """
    left = [room for folder, v2 in _groups(root) if (room := _room(folder, v2)) is not None]
    return min(left, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, bool]]:
    """Each group of this process that may limit its memory, and whether it is one of version 2: itself, its parents."""
    for number, controllers, path in _lines(root / "proc/self/cgroup", ":"):
        v2 = number == "0" and not controllers
        if not v2 and "memory" not in controllers.split(","):
            continue
        for mount, kind, options in _mounts(root):
            if kind != ("cgroup2" if v2 else "cgroup") or (not v2 and "memory" not in options):
                continue
            top = root / mount.lstrip("/")
            group = top / path.lstrip("/")
            # In a container the path may be the host's: then the top of what is mounted is its own group.
            for folder in (group, *group.parents) if group.is_dir() else (top,):
                yield folder, v2
                if folder == top:
                    break


def _mounts(root: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Mount point, type and superblock's options of each mount (proc(5), mountinfo)."""
    try:
        text = (root / "proc/self/mountinfo").read_text()
    except (OSError, UnicodeDecodeError):
        return
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) >= 5 and len(right) >= 3:
            yield left[4], right[0], right[2].split(",")


def _lines(path: Path, separator: str) -> Iterator[tuple[str, str, str]]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return
    for line in text.splitlines():
        fields = line.split(separator, 2)
        if len(fields) == 3:
            yield fields[0], fields[1], fields[2]


def _room(folder: Path, v2: bool) -> int | None:
    names = ("memory.max", "memory.current", "inactive_file") if v2 else _V1_NAMES
    limit, used = _number(folder / names[0]), _number(folder / names[1])
    if limit is None or used is None or limit >= _V1_UNLIMITED:
        return None
    return max(limit - max(used - _cache(folder / "memory.stat", names[2]), 0), 0)


_V1_NAMES: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _number(path: Path) -> int | None:
    """The number in a file; None for "max", or if there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cache(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0
