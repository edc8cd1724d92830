"""Where a guest is, as one QEMU with its backend sees it: the table of its states, and what is on disk in each.

Two files of the run directory say it to whoever finds the guest when its supervisor process is gone: `run.json` (the
directory that has it has the guest) and `handover` (empty: it may be paused, and is to run on; with a place: it may run
there, and must not run here). docs/reference/guest-places.md is printed from the tables here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from qemu_sdei import rundir as files
from qemu_sdei.errors import SdeiError, UsageError


class State(Enum):
    """Where the guest is."""

    ARRIVING = "arriving"
    ARRIVED = "arrived"
    HERE = "here"
    LEAVING = "leaving"
    UNDECIDED = "undecided"
    MOVED = "moved"
    GONE = "gone"
    NOBODY = "with nobody"


class Event(Enum):
    """What happens to it."""

    BOOT = "it is booted"
    LEAVE = "it is paused, to be written down"
    RETURN = "it goes on here after all"
    TAKE = "it is handed over on this host: here it arrives"
    HAND_OVER = "it is handed over on this host: from here"
    GO = "it runs here"
    GIVE_BACK = "it goes back on this host: from here"
    TAKE_BACK = "it goes back on this host: to here, or is lost between the two"
    TELL = "another host is told to go on with it"
    CONFIRM = "the other host has said that it runs there"
    FIND = "it is taken over, and may run at another host"
    RELEASE = "the supervisor process ends, or lets go of it"
    ADOPT = "another supervisor process takes it over"


class Death(Enum):
    """What follows when the backend dies."""

    REPLACED = "another one is started"
    WAITS = "another one is started when the guest goes on here"
    ENDS = "the arrival has failed"
    ALONE = "nobody starts another one; who adopts it does"


class Disk(Enum):
    """What is done in the run directory."""

    NOTHING = ""
    DESCRIBE = "`run.json` is written"
    MARK = "`handover` is made, empty"
    MARK_WHERE = "`handover` names the other host"
    CLEAR = "`run.json` is written where it is missing, `handover` is removed"
    FETCH = "`handover` is made, then `run.json` comes from the other directory"
    FETCH_BACK = "`run.json` comes back from the other directory"
    UNMARK = "`handover` is removed"


@dataclass(frozen=True)
class Facts:
    """What is so in a state."""

    described: bool | None
    """`run.json` is there; None: it does not matter, these processes are about to end."""
    handover: str
    """What `handover` says: "" (there is none), "empty", "where", or "any" of these."""
    is_guest: bool
    """The end of these processes is the end of the guest."""
    death: Death
    input_held: bool
    """What is typed is kept here until the guest goes on, here or elsewhere."""
    acts: str
    """Who may act."""


FACTS: Final[dict[State, Facts]] = {
    State.ARRIVING: Facts(False, "", False, Death.ENDS, False, "the migration that brings it"),
    State.ARRIVED: Facts(True, "empty", True, Death.REPLACED, False, "the migration that brings it"),
    State.HERE: Facts(True, "", True, Death.REPLACED, False, "everybody"),
    State.LEAVING: Facts(True, "empty", True, Death.WAITS, True, "who has paused it: a migration, a save, a snapshot"),
    State.UNDECIDED: Facts(True, "where", True, Death.WAITS, True, "its user: `migrate --resume` here, or `stop`"),
    State.MOVED: Facts(False, "empty", False, Death.WAITS, True, "the migration that takes it away"),
    State.GONE: Facts(None, "where", True, Death.WAITS, True, "nobody: these processes end"),
    State.NOBODY: Facts(None, "any", True, Death.ALONE, False, "whoever attaches to it, or stops it"),
}


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    state: State | None
    """None: nothing is there yet."""
    event: Event
    next: State
    disk: Disk = Disk.NOTHING


ROWS: Final = (
    Row(None, Event.BOOT, State.HERE, Disk.DESCRIBE),
    Row(None, Event.ADOPT, State.HERE),
    Row(State.NOBODY, Event.ADOPT, State.HERE),
    Row(State.HERE, Event.FIND, State.UNDECIDED),
    Row(State.HERE, Event.RETURN, State.HERE, Disk.CLEAR),
    Row(State.HERE, Event.LEAVE, State.LEAVING, Disk.MARK),
    Row(State.LEAVING, Event.LEAVE, State.LEAVING, Disk.MARK),
    Row(State.LEAVING, Event.RETURN, State.HERE, Disk.CLEAR),
    Row(State.LEAVING, Event.HAND_OVER, State.MOVED),
    Row(State.MOVED, Event.TAKE_BACK, State.LEAVING, Disk.FETCH_BACK),
    Row(State.ARRIVING, Event.TAKE, State.ARRIVED, Disk.FETCH),
    Row(State.ARRIVED, Event.GIVE_BACK, State.ARRIVING),
    Row(State.ARRIVED, Event.GO, State.HERE, Disk.UNMARK),
    Row(State.ARRIVING, Event.RETURN, State.HERE, Disk.CLEAR),
    Row(State.LEAVING, Event.TELL, State.UNDECIDED, Disk.MARK_WHERE),
    Row(State.UNDECIDED, Event.CONFIRM, State.GONE),
    Row(State.UNDECIDED, Event.RETURN, State.HERE, Disk.CLEAR),
    *(Row(state, Event.RELEASE, State.NOBODY) for state in (None, State.HERE, State.LEAVING, State.UNDECIDED)),
)

_TABLE: Final = {(row.state, row.event): row for row in ROWS}


class Place:
    """Where one guest is. The only writer of `run.json` and `handover`."""

    def __init__(self, directory: Path, describe: Callable[[Path], object], *, arriving: bool = False) -> None:
        """`describe` writes `run.json` into a directory; it may raise `UsageError`."""
        self.state: State | None = State.ARRIVING if arriving else None
        self.where = ""
        """Where it is, or may be, if that is another host."""
        self._directory = directory
        self._describe = describe

    @property
    def facts(self) -> Facts:
        """What is so now."""
        return FACTS[State.HERE if self.state is None else self.state]

    def on(self, event: Event, *, where: str = "", other: Place | None = None) -> None:
        """Something happens to the guest.

        Args:
            where: the other host, for TELL and FIND.
            other: the place on this host that the guest comes from, for TAKE, or comes back from, for TAKE_BACK.

        Raises:
            UsageError: `run.json` cannot be written, at BOOT; later the guest goes on all the same, and nobody could
            adopt it. `OSError`: `handover` cannot be written, at TELL: whoever finds the guest would run it twice.
            `SdeiError`: that cannot happen in this state.
        """
        row = _TABLE.get((self.state, event))
        if row is None:
            now = "not there" if self.state is None else self.state.value
            raise SdeiError(f"the guest is {now}: {event.value!r} cannot happen to it")
        self._write(row.disk, where, other)
        self.where = where or (self.where if row.next in (State.UNDECIDED, State.GONE) else "")
        self.state = row.next

    def describe(self) -> None:
        """Write `run.json` anew, where it is: what it says has changed."""
        if self.facts.described:
            with contextlib.suppress(UsageError):
                self._describe(self._directory)

    def _write(self, disk: Disk, where: str, other: Place | None) -> None:
        if disk is Disk.DESCRIBE:
            self._describe(self._directory)
            return
        marker = self._directory / files.HANDOVER
        if disk is Disk.MARK_WHERE:
            marker.write_text(where + "\n")
            return
        with contextlib.suppress(OSError, UsageError):
            # As a full disk would have it: the guest goes on all the same.
            if disk in (Disk.MARK, Disk.FETCH):
                marker.touch(0o600)
            elif disk is Disk.CLEAR and not (self._directory / files.RUN).exists():
                self._describe(self._directory)
        with contextlib.suppress(OSError):
            if disk in (Disk.FETCH, Disk.FETCH_BACK) and other is not None:
                # By one step: the guest is never in both directories, should this process be killed.
                (other._directory / files.RUN).replace(self._directory / files.RUN)
        if disk in (Disk.CLEAR, Disk.UNMARK):
            with contextlib.suppress(OSError):
                marker.unlink()


def found(directory: Path) -> tuple[bool, str | None]:
    """What whoever adopts a guest finds: whether it was in somebody's hands, and where it may be ("": here; None: it
    was in nobody's hands).
    """
    marker = directory / files.HANDOVER
    if not marker.exists():
        return False, None
    where = ""
    with contextlib.suppress(OSError, ValueError):
        where = marker.read_text().strip()
    return True, where
