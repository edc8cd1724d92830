"""Room in the journal: a checkpoint when it is full; there can be none while a service is amid its micro-operations.

Its CPU does them in microseconds, if the host runs that CPU. Meanwhile others may call so often that the journal
overflows, and the service's call would have to be given up for nothing that it did. So they are left waiting then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from qemu_sdei.backend.loop.journal import OVERFLOW

if TYPE_CHECKING:
    from qemu_sdei.backend.loop.server import Server

_LIMIT: Final = 1.0
"""Seconds for which a CPU is waited for: one that QEMU has stopped comes only when it goes on."""
_PAUSE: Final = 50e-6


class Room:
    """Sees to it that the journal of one server has some."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting = False
        self._in_vain = False
        """It was waited for, and is not again before the next checkpoint."""

    def make(self) -> None:
        """The journal is full: a checkpoint, as soon as there can be one."""
        server = self._server
        if self._waiting:
            return  # this is one of the frames that are waited for
        if server.firmware.busy and not self._in_vain:
            self._wait()
        if server.firmware.busy:
            if server.journal.count < OVERFLOW:
                return
            server.firmware.abandon()
        self._in_vain = False
        server._room = False
        server.checkpoint()

    def _wait(self) -> None:
        """Answer no CPU but those whose services are amid their micro-operations, until none is."""
        server = self._server
        seq, limit = server.window.seq, time.monotonic() + _LIMIT
        self._waiting = True
        try:
            while server.firmware.busy and server.journal.count < OVERFLOW and not server.held:
                posted = [pe for pe in server.firmware.amid if seq[pe] != server._seen[pe]]
                for pe in posted:
                    server._frame_function()(pe, seq[pe])
                if not posted:
                    if time.monotonic() > limit:
                        self._in_vain = True
                        return
                    time.sleep(_PAUSE)
        finally:
            self._waiting = False
