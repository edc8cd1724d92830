"""How far a guest is, for other processes: the request `state` of its owner socket, and who asks it.

What a guest says of itself is on its console, which its supervisor has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from qemu_sdei.errors import SdeiError
from qemu_sdei.guest import shell
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.supervisor_client import ask
from qemu_sdei.guest.supervisor_socket import Command, Progress

_LOOK: Final = 2.0
"""Seconds that a look may take."""


@dataclass(frozen=True)
class GuestState:
    """How far a guest is."""

    booted: bool
    """Init of our own initramfs is as far as its shell, or its command."""
    panicked: bool
    moves: bool
    """It is being migrated, saved, or written to a snapshot."""
    agent: str
    """What init says of the agent: "ready"; "none": the kernel has no driver for its card; "": nothing yet."""

    @classmethod
    def of(cls, record: GuestRecord, *, moves: bool) -> GuestState:
        """Of a guest of this process; `moves`: see there."""
        resets = record.supervisor.resets.newest()
        since = max(int(resets[-1]["position"]) if resets else 0, record.console.left)
        text, _ = record.console.since(since)
        agent, booted = "", False
        for nonce in (record.nonce, *record.earlier):
            booted = booted or any(shell.marker(nonce, word) in text for word in ("shell", "begin"))
            for word, state in (("channel:ready", "ready"), ("channel:", "none")):
                agent = state if shell.marker(nonce, word) in text else agent
        return cls(booted, record.console.panicked, moves, agent)


class StateTold:
    """Tells of it, in the guest's event loop."""

    def __init__(self, record: GuestRecord, moves: Callable[[], bool]) -> None:
        self._record, self._moves = record, moves

    @property
    def commands(self) -> dict[str, Command]:
        """The request by its name."""
        return {"state": self._requested}

    async def _requested(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        return asdict(GuestState.of(self._record, moves=self._moves()))


def state(owner: Path, identity: str) -> GuestState | None:
    """How far the guest behind an owner socket is; None: nobody says, as where it has no supervisor."""
    try:
        found = ask(owner, "state", {}, lambda step: None, identity=identity, patience=_LOOK)
    except SdeiError:
        return None
    flags = [found.get(name) for name in ("booted", "panicked", "moves")]
    agent = found.get("agent")
    if not all(type(flag) is bool for flag in flags) or not isinstance(agent, str):
        return None
    booted, panicked, moves = map(bool, flags)
    return GuestState(booted, panicked, moves, agent)
