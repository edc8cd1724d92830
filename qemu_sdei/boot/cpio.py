"""A writer for the newc cpio format, which is what Linux unpacks an initramfs from.

Format: Documentation/driver-api/early-userspace/buffer-format.rst. The same entries always give the same bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from qemu_sdei.errors import UsageError

MAX_FILE: Final = (1 << 32) - 1
"""Bytes; sizes are eight hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Node:
    """One entry: `mode` holds type and permissions as in `struct stat`; `data` is contents or a symlink's target."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    """Major and minor number of a device node."""


def directory(path: str, mode: int = 0o755) -> Node:
    """A directory."""
    return Node(path, stat.S_IFDIR | mode)


def file(path: str, data: bytes, mode: int = 0o644) -> Node:
    """A regular file."""
    return Node(path, stat.S_IFREG | mode, data)


def symlink(path: str, target: str) -> Node:
    """A symbolic link to `target`."""
    return Node(path, stat.S_IFLNK | 0o777, target.encode())


def fifo(path: str, mode: int = 0o600) -> Node:
    """A named pipe."""
    return Node(path, stat.S_IFIFO | mode)


def character_device(path: str, major: int, minor: int, mode: int = 0o600) -> Node:
    """A character device node."""
    return Node(path, stat.S_IFCHR | mode, device=(major, minor))


def archive(nodes: Iterable[Node]) -> bytes:
    """A newc archive of `nodes`, with the directories that they need made first.

    Later nodes of the same path replace earlier ones.

    Raises:
        UsageError: a path is empty, absolute above the root ("..") or holds a NUL, is that of a directory and of a
            file at once, or a file is larger than 4 GiB.
    """
    tree: dict[str, Node] = {}
    for node in nodes:
        parts = _parts(node.path)
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if not stat.S_ISDIR(tree.setdefault(parent, directory(parent)).mode):
                raise UsageError(f"initramfs: {node.path!r} lies below {parent!r}, which is not a directory")
        if len(node.data) > MAX_FILE:
            raise UsageError(f"initramfs: {node.path!r} is larger than 4 GiB")
        path = "/".join(parts)
        if path in tree and stat.S_ISDIR(tree[path].mode) and not stat.S_ISDIR(node.mode):
            raise UsageError(f"initramfs: {node.path!r} is a directory already and cannot be a file too")
        tree[path] = node
    out = bytearray()
    for number, (path, node) in enumerate(tree.items(), start=1):
        _append(out, number, path.encode(), node)
    _append(out, 0, b"TRAILER!!!", Node("", 0))
    return bytes(out)


def _parts(path: str) -> tuple[str, ...]:
    parts = tuple(part for part in PurePosixPath(path).parts if part != "/")
    if not parts or ".." in parts or "\0" in path:
        raise UsageError(f"initramfs: {path!r} is not a path of a file in it")
    return parts


def _append(out: bytearray, number: int, name: bytes, node: Node) -> None:
    links = 2 if stat.S_ISDIR(node.mode) else 1
    major, minor = node.device
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    fields = (number, node.mode, 0, 0, links, 0, len(node.data), 0, 0, major, minor, len(name) + 1, 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name + b"\0"
    out += bytes(-len(out) % 4)
    out += node.data
    out += bytes(-len(out) % 4)
