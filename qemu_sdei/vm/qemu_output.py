"""The owner's end of what QEMU says on standard output and error: from a pipe into qemu.log, which has a bound.

When the owner is killed, the backend goes on with it (`lifeline.py` there): it has inherited the same descriptor.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from qemu_sdei import boundedlog


class OutputLink:
    """Reads one QEMU's output, for use in one event loop."""

    def __init__(self, fd: int, path: Path) -> None:
        """`fd` (non-blocking) is this object's from now on; `path` is the log. Raises `OSError`: it cannot be made."""
        self.fd: int | None = fd
        """None once it is closed."""
        try:
            self._log = boundedlog.BoundedLog(path)
        except OSError:
            os.close(fd)
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._read, fd)

    def _read(self, fd: int) -> None:
        if boundedlog.take(fd, self._log) is None:
            self._loop.remove_reader(fd)

    def close(self) -> None:
        """Take what lies there, and read no more."""
        fd, self.fd = self.fd, None
        if fd is not None:
            self._loop.remove_reader(fd)
            boundedlog.drain(fd, self._log)
            os.close(fd)
            self._log.close()
