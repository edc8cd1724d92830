"""How a guest ended, for other processes: the request `wait` of its owner socket, and who asks it (`qemu-sdei wait`).

The process that runs the guest knows the exit status that it is about to return, and says it before it goes.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import asdict, dataclass
from typing import Any, Final

from qemu_sdei.guest.supervisor_socket import Command, Progress

ALIVE: Final = 1.0
"""Seconds after which who waits is told that the guest goes on."""
_LOOK: Final = 0.05
_TOLD: Final = 1.0
"""Seconds for those who wait to be told, before the guest's process goes."""


@dataclass(frozen=True)
class Conclusion:
    """The end of a guest."""

    status: int
    """Exit status of `run`: its command's own, or as docs/reference/exit-codes.md has it."""
    words: str
    """What is said of it, in one line; "" where there is nothing to say."""

    def to_json(self) -> dict[str, Any]:
        """As an answer has it."""
        return asdict(self)


class EndTold:
    """The end of one guest, once it is known. `conclude` may be called from any thread."""

    def __init__(self) -> None:
        self._conclusion: Conclusion | None = None
        self._over = False
        self._waiting = 0
        self._lock = threading.Lock()

    def conclude(self, conclusion: Conclusion) -> None:
        """That is how it ended; the first word counts."""
        with self._lock:
            self._conclusion = self._conclusion or conclusion

    @property
    def conclusion(self) -> Conclusion | None:
        """How it ended, where that was said."""
        return self._conclusion

    @property
    def commands(self) -> dict[str, Command]:
        """The request by its name."""
        return {"wait": self._requested}

    async def _requested(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Reports `{}` while the guest goes on; the answer is its `Conclusion`."""
        self._waiting += 1
        try:
            progress({})
            silent = 0.0
            while not self._over:
                await asyncio.sleep(_LOOK)
                silent += _LOOK
                if silent >= ALIVE:
                    silent = 0.0
                    progress({})
            conclusion = self._conclusion or Conclusion(0, "the program that ran the guest has ended it")
            return conclusion.to_json()
        finally:
            self._waiting -= 1

    async def tell(self) -> None:
        """Answer those who wait; in the event loop, before its socket is closed."""
        self._over = True
        waited = 0.0
        while self._waiting and waited < _TOLD:
            await asyncio.sleep(_LOOK)
            waited += _LOOK
        if waited:
            await asyncio.sleep(_LOOK)  # the last answer is on its way
