"""What `qemu-sdei doctor` tries rather than looks for: places that guests write to, and a guest.

Each trial goes the way that `run` goes, so that none says ok where `run` refuses.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Final

from qemu_sdei import rundir
from qemu_sdei.config import format_size
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.host import memory
from qemu_sdei.host.environment import Finding
from qemu_sdei.paths import cache_directory
from qemu_sdei.vm.options import GuestOptions

_ROOM: Final = 200 << 20
"""Bytes that Debian's kernel, its modules and what is unpacked of them take in an empty cache."""
_PSCI_VERSION: Final = "mode=call function=0x84000000"
_TIMEOUT: Final = 120.0


def places() -> list[Finding]:
    """The run directory and the cache, each written to; and memory for a guest of the default size. Raises nothing."""
    return [_run_directory(), _cache(), _memory()]


def _run_directory() -> Finding:
    why = "sockets and logs of running guests"
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=rundir.make_base()) as made:
            (Path(made) / "file").write_bytes(bytes(4096))
        return Finding("run directory", str(rundir.base_path()), True, why, "")
    except OSError as error:
        where = rundir.base_path()
        remedy = f"{where} cannot be written: {error.strerror}; make room there, or set XDG_RUNTIME_DIR"
    except UsageError as error:
        remedy = str(error)
    return Finding("run directory", None, True, why, remedy, tried=True)


def _cache() -> Finding:
    why = "Debian's kernel and busybox, and what is made of them"
    try:
        directory = cache_directory()
    except UsageError as error:
        return Finding("cache", None, True, why, str(error), tried=True)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=".doctor-", dir=directory) as file:
            file.write(bytes(4096))
            file.flush()
        status = os.statvfs(directory)
    except OSError as error:
        remedy = f"{directory} cannot be used: {error.strerror}; set XDG_CACHE_HOME to a directory that can be written"
        return Finding("cache", None, True, why, remedy, tried=True)
    free = status.f_bavail * status.f_frsize
    if free < _ROOM and not (directory / "index.json").exists():
        remedy = (
            f"{directory} has {free >> 20} MiB free, a kernel takes {_ROOM >> 20}: make room, or set XDG_CACHE_HOME"
        )
        return Finding("cache", None, True, why, remedy, tried=True)
    return Finding("cache", f"{directory}, {format_size(free >> 20 << 20)} free", True, why, "")


def _memory() -> Finding:
    """As `run` asks for it."""
    why = f"a guest has {GuestOptions.memory} unless told otherwise"
    free = memory.available()
    found = "unknown" if free is None else f"{format_size(free >> 20 << 20)} available"
    try:
        memory.check_free(memory.ram_size(GuestOptions.memory), None)
    except UsageError as error:
        return Finding("memory", None, True, why, f"{error}, or end other programs", tried=True)
    return Finding("memory", found, True, why, "")


def guest(qemu: Path | None = None) -> Finding:
    """Start a bare-metal guest, have it call its firmware, wait for its end: about a second. Raises nothing."""
    from qemu_sdei.guest.guest import Guest

    why = "a bare-metal guest that calls PSCI_VERSION and powers off"
    begun = time.monotonic()
    try:
        with Guest(GuestOptions(kernel="builtin:bench", append=_PSCI_VERSION, qemu=qemu)) as running:
            running.expect("x0=0x10001", timeout=_TIMEOUT)
            running.wait_off(_TIMEOUT)
    except (SdeiError, OSError) as error:
        first, *more = str(error).splitlines()
        return Finding("a guest", None, True, why, "\n".join([first, *(f"  {line}" for line in more[:12])]), tried=True)
    return Finding("a guest", f"called its firmware, {time.monotonic() - begun:.1f} s", True, why, "")
