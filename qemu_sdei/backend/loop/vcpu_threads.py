"""How long the host has kept QEMU's vCPU threads waiting: from procfs, by the names that QEMU gives to its threads.

QEMU names them where it was started with `-name debug-threads=on`. Without that, or where procfs hides them, nothing is
known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Final

_NAME: Final = re.compile(rb"CPU (\d{1,4})/[A-Z]+\n?")
_MOST: Final = 128
"""Bytes of a file that are read: both have one line."""


class VcpuThreads:
    """Those of one QEMU."""

    def __init__(self, processes: Callable[[], Iterable[int]], nr_cpus: int, proc: str = "/proc") -> None:
        """`processes`: numbers of the processes that may be QEMU; asked for until one has `nr_cpus` such threads."""
        self._processes = processes
        self._nr_cpus = nr_cpus
        self._proc = proc
        self._schedstats: dict[int, str] = {}
        """vCPU -> its thread's file."""

    def waited(self) -> dict[int, int]:
        """By vCPU, the nanoseconds for which its thread could have run and did not, since the thread began."""
        if len(self._schedstats) < self._nr_cpus:
            self._find()
        try:
            return {vcpu: int(_read(path).split()[1]) for vcpu, path in self._schedstats.items()}
        except (OSError, ValueError, IndexError):
            self._schedstats.clear()  # QEMU has ended
            return {}

    def _find(self) -> None:
        self._schedstats.clear()
        for pid in self._processes():
            folder = f"{self._proc}/{pid}/task"
            try:
                for thread in os.scandir(folder):
                    named = _NAME.fullmatch(_read(f"{thread.path}/comm"))
                    if named is not None:
                        self._schedstats[int(named[1])] = f"{thread.path}/schedstat"
            except OSError:
                self._schedstats.clear()
            if self._schedstats:
                return


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _MOST)
    finally:
        os.close(fd)
