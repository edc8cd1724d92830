"""The resets of a guest: how many there were, and the newest of them. A guest can make a hundred of them a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

KEPT: Final = 256
"""So many resets are remembered one by one."""


class Resets:
    """QMP's RESET events of one guest."""

    def __init__(self, newest: Iterable[dict[str, Any]] = (), count: int = 0) -> None:
        """`newest`: {guest, reason, position}, `position` being the console's end then; `count`: all there were, where
        that is more.
        """
        self._newest = deque(newest, KEPT)
        self.count = max(count, len(self._newest))
        """How many there were."""

    def add(self, reset: dict[str, Any]) -> None:
        """There was one."""
        self._newest.append(reset)
        self.count += 1

    def newest(self) -> list[dict[str, Any]]:
        """The newest ones, oldest first."""
        return list(self._newest)

    def to_json(self) -> dict[str, Any]:
        """As fields of a message: never more than some 30 KiB."""
        return {"resets": self.newest(), "count": self.count}
