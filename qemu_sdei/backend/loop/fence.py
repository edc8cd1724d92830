"""What was written before is seen before what is read or written after: Python has no fence, but a lock has one.

To release a lock that is held and take it again executes locked instructions, which are full fences on x86, and costs
half of taking and releasing one that is free.
"""

from __future__ import annotations

import threading


class Fence:
    """A full fence between two accesses to memory that another process, or a vCPU, has too.

    Attributes:
        release, acquire: called one after the other they are the fence; for whoever cannot afford one call more.
    """

    def __init__(self) -> None:
        held = threading.Lock()
        held.acquire()
        self.release, self.acquire = held.release, held.acquire

    def order(self) -> None:
        """The fence."""
        self.release()
        self.acquire()
