"""The host's kernel says that a page of our memory has gone bad: SIGBUS with BUS_MCEERR_AO or BUS_MCEERR_AR.

With PR_MCE_KILL_EARLY a process is told as soon as the kernel has taken a page away (AO, "action optional"), and not
when it touches it. The signal is blocked and comes by a signalfd, which says of which address it was; Python's own
functions do not. If the backend itself touches the page before (AR, "action required"), the kernel ends it, as it does
any process that has SIGBUS blocked; its supervisor starts another.

SIGBUS from anything else (a store to a file that was cut off) is not blocked by that: the kernel forces it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Callable
from typing import Final

from qemu_sdei.backend.loop.descriptors import Descriptors
from qemu_sdei.backend.loop.event_log import complain

BUS_MCEERR_AR: Final = 4
BUS_MCEERR_AO: Final = 5
_PR_MCE_KILL, _PR_MCE_KILL_SET, _PR_MCE_KILL_EARLY = 33, 1, 1
_SFD_NONBLOCK, _SFD_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_INFO: Final = 128
"""Bytes of `struct signalfd_siginfo`."""
_CODE_AT, _ADDRESS_AT, _LSB_AT = 8, 72, 80
_LSB_MAX: Final = 30
_SET_BYTES: Final = 128
"""Of glibc's sigset_t."""


class MemorySignals:
    """Watches for them, for as long as it is open."""

    def __init__(self, descriptors: Descriptors, told: Callable[[int, int, bool], None]) -> None:
        """Block SIGBUS in this thread, and so in those that it starts from now on.

        Args:
            descriptors: the loop that watches.
            told: called with the virtual address that went bad, how many bytes did, and whether it was touched (AR).

        Raises:
            OSError: the host has no signalfd.
        """
        self._descriptors = descriptors
        self._told = told
        libc = ctypes.CDLL(None, use_errno=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGBUS})
        wanted = (1 << signal.SIGBUS - 1).to_bytes(_SET_BYTES, "little")
        self._fd = libc.signalfd(-1, wanted, _SFD_NONBLOCK | _SFD_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "signalfd")
        # Without it (a kernel without CONFIG_MEMORY_FAILURE) it is told when it touches the page.
        libc.prctl(_PR_MCE_KILL, _PR_MCE_KILL_SET, _PR_MCE_KILL_EARLY, 0, 0)
        descriptors.watch(self._fd, self._ready)

    def close(self) -> None:
        """Watch no more; does nothing the second time."""
        if self._fd >= 0:
            self._descriptors.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ready(self, _events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                info = os.read(self._fd, _INFO)
                (code,) = struct.unpack_from("<i", info, _CODE_AT)
                if code not in (BUS_MCEERR_AO, BUS_MCEERR_AR):
                    complain(f"a SIGBUS with si_code {code} that no memory error has sent: passed over")
                    continue
                address, lsb = (
                    struct.unpack_from("<Q", info, _ADDRESS_AT)[0],
                    struct.unpack_from("<H", info, _LSB_AT)[0],
                )
                self._told(address, 1 << min(lsb, _LSB_MAX), code == BUS_MCEERR_AR)


def address_of(memory: memoryview) -> int:
    """Virtual address of a writable memory in this process."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
