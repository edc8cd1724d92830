"""An empty disk image of format qcow2, which QEMU then fills: docs/interop/qcow2 of QEMU, version 3.

QEMU itself could make one, but only by another program (`qemu-img`) that Debian has in another package.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

MAGIC: Final = b"QFI\xfb"
_CLUSTER_BITS: Final = 16
_CLUSTER: Final = 1 << _CLUSTER_BITS
_DISK: Final = 1 << 20
"""Bytes of the disk that nobody sees. What counts are the snapshots beside it, which may be as large as they like."""
_REFCOUNT_ORDER: Final = 4  # 16 bits each
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQII")


def empty() -> bytes:
    """The image: a cluster each for the header, the refcount table, its one block, and the L1 table."""
    l1_entries = -(-_DISK // (_CLUSTER * _CLUSTER // 8))
    header = _HEADER.pack(
        MAGIC,
        3,
        0,  # no backing file
        0,
        _CLUSTER_BITS,
        _DISK,
        0,  # not encrypted
        l1_entries,
        3 * _CLUSTER,
        _CLUSTER,
        1,  # clusters of the refcount table
        0,  # snapshots
        0,
        0,  # features: incompatible, compatible, autoclear
        0,
        0,
        _REFCOUNT_ORDER,
        _HEADER.size,
    )
    table = struct.pack(">Q", 2 * _CLUSTER)
    counts = struct.pack(">4H", 1, 1, 1, 1)
    l1 = b""
    return b"".join(part.ljust(_CLUSTER, b"\0") for part in (header, table, counts, l1))


def create(path: Path) -> None:
    """Make the image `path`, mode 0600, unless there is something. Raises `OSError`."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    with os.fdopen(fd, "wb") as file:
        file.write(empty())
