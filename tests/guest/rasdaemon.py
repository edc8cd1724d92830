"""Debian's rasdaemon in our own initramfs: its files, and what its database says."""

from __future__ import annotations

import base64
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.helper import Helper
from qemu_sdei.host.debian import DebianCache

DATABASE = "/var/lib/rasdaemon/ras-mc_event.db"
_FILES = {
    "rasdaemon": ("usr/sbin/rasdaemon",),
    "libc6": ("lib/aarch64-linux-gnu/libc.so.6", "lib/aarch64-linux-gnu/libm.so.6", "lib/ld-linux-aarch64.so.1"),
    "libsqlite3-0": ("usr/lib/aarch64-linux-gnu/libsqlite3.so.0",),
}
"""What it needs of each package."""


def files(folder: Path) -> dict[str, Path]:
    """For `GuestOptions.files`, unpacked into `folder`. Raises `UsageError`: a package cannot be had."""
    cache = DebianCache()
    found: dict[str, Path] = {}
    for package, names in _FILES.items():
        subprocess.run(["dpkg-deb", "-x", cache.package(package), folder], check=True, timeout=60)
        found |= {f"/{name}": (folder / name).resolve() for name in names}
    return found


def helper(guest: Guest) -> Helper:
    """Commands in the guest. Those at its console would be told of what runs in the background."""
    return Helper(guest.placement.directory.path)


def start(guest: Guest) -> None:
    """Start it, and wait until it listens to the kernel."""
    command = (
        "mkdir -p /var/lib/rasdaemon; mount -t debugfs debugfs /sys/kernel/debug; "
        "/usr/sbin/rasdaemon --foreground --record >/tmp/rasdaemon 2>&1 & "
        "n=100; until grep -q 'Listening to events' /tmp/rasdaemon || [ $((n -= 1)) -lt 0 ]; do sleep 0.2; done; "
        # Else the kernel does not wake it before its buffer is half full.
        "echo 0 >/sys/kernel/debug/tracing/instances/rasdaemon/buffer_percent; cat /tmp/rasdaemon"
    )
    said = helper(guest).run(command, 60).output
    assert "Listening to events" in said, said


def rows(guest: Guest, folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table of its database."""
    copy = folder / "ras-mc_event.db"
    # Whole: it is written by one process, which is stopped meanwhile.
    command = f"p=$(pidof rasdaemon); kill -STOP $p; base64 {DATABASE}; kill -CONT $p"
    text = helper(guest).run(command, 60).output
    copy.write_bytes(base64.b64decode("".join(text.split())))
    with sqlite3.connect(copy) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(f"SELECT * FROM {table}")]
