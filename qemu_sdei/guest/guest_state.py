"""How far a guest is, for other processes: the request `state` of its owner socket, and who asks it.

What a guest says of itself is on its console, which its supervisor has.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
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
    agent: str
    """What init says of the agent: "ready"; "none": the kernel has no driver for its card; "": nothing yet."""

    @classmethod
    def of(cls, record: GuestRecord) -> GuestState:
        """Of a guest of this process."""
        resets = record.supervisor.resets.newest()
        since = max(int(resets[-1]["position"]) if resets else 0, record.console.left)
        text, _ = record.console.since(since)
        agent, booted = "", False
        for nonce in (record.nonce, *record.earlier):
            booted = booted or any(shell.marker(nonce, word) in text for word in ("shell", "begin"))
            for word, state in (("channel:ready", "ready"), ("channel:", "none")):
                agent = state if shell.marker(nonce, word) in text else agent
        return cls(booted, record.console.panicked, agent)


class StateTold:
    """Tells of it, in the guest's event loop."""

    def __init__(self, record: GuestRecord) -> None:
        self._record = record

    @property
    def commands(self) -> dict[str, Command]:
        """The request by its name."""
        return {"state": self._requested}

    async def _requested(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        return asdict(GuestState.of(self._record))


def state(owner: Path, identity: str) -> GuestState | None:
    """How far the guest behind an owner socket is; None: nobody says, as where it has no supervisor."""
    try:
        found = ask(owner, "state", {}, lambda step: None, identity=identity, patience=_LOOK)
    except SdeiError:
        return None
    values = {field.name: found.get(field.name) for field in fields(GuestState)}
    if type(values["booted"]) is not bool or type(values["panicked"]) is not bool or type(values["agent"]) is not str:
        return None
    return GuestState(values["booted"], values["panicked"], values["agent"])
