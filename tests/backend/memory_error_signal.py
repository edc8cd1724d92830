"""Sends this very process the SIGBUS by which the kernel tells of a bad page, without one: `rt_sigqueueinfo`, which
lets only a process itself say that the kernel has sent it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct

from qemu_sdei.backend.loop.memory_signals import BUS_MCEERR_AO

_RT_SIGQUEUEINFO = {"x86_64": 129, "aarch64": 138}
_SIGINFO = 128


def tell(address: int, *, code: int = BUS_MCEERR_AO, lsb: int = 12) -> None:
    """SIGBUS for `address`, of a page of 2 ** `lsb` bytes."""
    info = struct.pack("<iiiiQh", signal.SIGBUS, 0, code, 0, address, lsb).ljust(_SIGINFO, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_RT_SIGQUEUEINFO[platform.machine()], os.getpid(), signal.SIGBUS, info):
        raise OSError(ctypes.get_errno(), "rt_sigqueueinfo")
