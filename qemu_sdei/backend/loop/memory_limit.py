"""The wall behind all bounds: how much private memory the backend may take at all.

Everything that a guest, a client or a document can make it take is bounded where it is read, and stays far below.
Should one of these bounds have a hole, the kernel refuses, and the host and the guests beside this one keep their
memory. What is limited is RLIMIT_DATA: private writable memory (since Linux 4.7 with all anonymous mappings). Guest RAM
is a shared mapping and does not count, and neither does the journal.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

from qemu_sdei.config import format_size, parse_size
from qemu_sdei.errors import UsageError

HEADROOM: Final = 256 << 20
"""Bytes beyond what the backend has once it has read the user's files: kernel, initrd, machine description, services.
The greediest things that it does are to take over 512 CPUs by a document, and to keep what clients send without an end
(64 MiB) or do not read (32 MiB): each far below.
"""
VARIABLE: Final = "QEMU_SDEI_BACKEND_MEMORY"
"""The environment's word for another headroom, as `--memory` is written: for users' services that need more."""
EXIT: Final = 12
"""Exit status of a backend that has reached the limit: another one would reach it too, so none is started."""


def limit_memory() -> int:
    """Limit what this process may take from now on. Returns the headroom in bytes.

    Raises:
        UsageError: the environment's word for it is none.
    """
    text = os.environ.get(VARIABLE)
    try:
        headroom = HEADROOM if text is None else parse_size(text)
    except UsageError as error:
        raise UsageError(f"{VARIABLE}: {error}") from None
    limit = _taken() + headroom
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return headroom


def reached() -> str:
    """What is to be said of a backend that has reached its limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    which = "" if limit == resource.RLIM_INFINITY else f" of {format_size(limit >> 20 << 20)}"
    return (
        f"it has reached its memory limit{which} and ends, so that the host keeps its memory; if your own service "
        f"needs more, set {VARIABLE} (256M)"
    )


def _taken() -> int:
    """Bytes of private writable memory that this process has."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "VmData":
            return int(value.split()[0]) << 10
    return 0
