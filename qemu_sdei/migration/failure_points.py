"""Where a migration can fail, and what each failure leaves: the one list that `sequence.py` acts by.

docs/reference/migration-failures.md is printed from it, and tests/migration/test_sequence.py walks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from qemu_sdei.errors import GuestError, LostGuestError
from qemu_sdei.migration.options import COPY, LIVE, POSTCOPY, ROUTES, SHARED


class LostInPostcopyError(LostGuestError):
    """The guest had gone on at the destination, and cannot without the RAM that was still at the source."""


class UndecidedError(GuestError):
    """Whether the guest runs at the destination is not known: it is paused here until its user decides."""


class Left(Enum):
    """What is left of the guest after a failure; the values are for people."""

    UNTOUCHED = "runs at the source, which has noticed nothing"
    SOURCE = "is resumed at the source"
    SOURCE_OR_LOST = "is resumed at the source if its QEMU still allows that, else lost"
    DESTINATION = "runs at the destination: the failure is of no account"
    UNDECIDED = "is paused at the source until its user decides"
    LOST = "is lost: RAM that it needs was still at the source"


class Stage(Enum):
    """The steps of a migration, in the order in which they are taken; the values are their names for people."""

    CONNECT = "connect"
    HOLD = "hold"
    PREPARE = "prepare"
    SEND = "send"
    PAUSE = "pause"
    COMPARE = "compare"
    CHECK = "check"
    SWITCHOVER = "switchover"
    ARRIVE = "arrive"
    VERIFY = "verify"
    RESTORE = "restore"
    HISTORY = "history"
    GO = "go"
    ANNOUNCE = "announce"
    CONFIRM = "confirm"
    FETCH = "fetch"


LOCAL: Final = ROUTES
"""Routes to another QEMU on this host."""
REMOTE: Final = (COPY, LIVE)
"""Routes to another host."""


@dataclass(frozen=True)
class FailurePoint:
    """One step of a migration that can fail."""

    what: str
    """What is done, for people."""
    leaves: Left
    """What a failure leaves of the guest."""
    postcopy: Left | None = None
    """The same with route `postcopy`, where it is something else."""
    unknown: Left | None = None
    """The same where the destination does not say what became of the guest (`UndecidedError`); None: that cannot be."""
    late: bool = False
    """A cancellation comes too late: the step is brought to its end."""
    local: tuple[str, ...] = LOCAL
    """Routes on this host that have the step."""
    remote: tuple[str, ...] = REMOTE
    """Routes to another host that have it."""


POINTS: Final[dict[Stage, FailurePoint]] = {
    Stage.CONNECT: FailurePoint("the source's backend takes a connection", Left.UNTOUCHED),
    Stage.HOLD: FailurePoint(
        "the guest reaches the hold point; where QEMU sends RAM while the guest runs, that is in `send`",
        Left.UNTOUCHED,
        local=(SHARED, COPY),
        remote=(COPY,),
    ),
    Stage.PREPARE: FailurePoint(
        "the destination starts QEMU and the backend, and takes the files that it has not", Left.UNTOUCHED
    ),
    Stage.SEND: FailurePoint(
        "QEMU sends RAM (`shared`: flash and the like) while the guest runs, until little is left",
        Left.SOURCE,
        local=(SHARED, LIVE, POSTCOPY),
        remote=(LIVE,),
    ),
    Stage.PAUSE: FailurePoint("the vCPUs are stopped, and the backend writes the state document", Left.SOURCE),
    Stage.COMPARE: FailurePoint("RAM that was sent so far is compared", Left.SOURCE, local=(POSTCOPY,), remote=()),
    Stage.CHECK: FailurePoint("the destination's backend checks the state document", Left.SOURCE),
    Stage.SWITCHOVER: FailurePoint(
        "QEMU sends what is left: of a guest that was stopped first, all; with `postcopy`, all but RAM",
        Left.SOURCE,
        postcopy=Left.SOURCE_OR_LOST,
    ),
    Stage.ARRIVE: FailurePoint(
        "the destination's QEMU has taken the guest, which is paused there",
        Left.SOURCE,
        postcopy=Left.SOURCE_OR_LOST,
    ),
    Stage.VERIFY: FailurePoint("RAM is compared, and repaired", Left.SOURCE, local=(COPY, LIVE)),
    Stage.RESTORE: FailurePoint(
        "the destination's backend takes the guest over", Left.SOURCE, postcopy=Left.SOURCE_OR_LOST
    ),
    Stage.HISTORY: FailurePoint(
        "the destination takes the rest of the console, the resets, and what was typed", Left.SOURCE, local=()
    ),
    Stage.GO: FailurePoint(
        "the destination's QEMU has the vCPUs run",
        Left.SOURCE,
        postcopy=Left.SOURCE_OR_LOST,
        unknown=Left.UNDECIDED,
        late=True,
    ),
    Stage.ANNOUNCE: FailurePoint(
        "the source's backend tells its clients where the guest is", Left.DESTINATION, late=True
    ),
    Stage.CONFIRM: FailurePoint(
        "the destination says when it saw the guest's first heartbeat", Left.DESTINATION, late=True
    ),
    Stage.FETCH: FailurePoint(
        "the destination's QEMU fetches the rest of RAM, while the guest runs there",
        Left.LOST,
        late=True,
        local=(POSTCOPY,),
        remote=(),
    ),
}


def left(stage: Stage, error: BaseException, route: str) -> Left:
    """What `error` at `stage` leaves of a guest that is migrated by `route`."""
    point = POINTS[stage]
    if isinstance(error, UndecidedError):
        # It may run there: whatever the step, the guest must not be resumed here as well.
        return point.unknown or Left.UNDECIDED
    if route == POSTCOPY and point.postcopy is not None:
        return point.postcopy
    return point.leaves
