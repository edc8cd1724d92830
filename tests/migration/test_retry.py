"""How often a migration is tried again, by which way, and what is said of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from qemu_sdei.errors import BusyError, GuestError, NotDeliveredError, SdeiError
from qemu_sdei.migration.options import Hold, MigrationOptions, MigrationResult
from qemu_sdei.migration.retry import TRIES, try_again

RESULT = MigrationResult("a", "b", "live", 7.0, 1.0, 1.0, 1, 5, 9, 11, None)
BUSY = BusyError("a service is busy")
OLD = NotDeliveredError("the guest has an old monitor")


class Attempts:
    """Attempts that come to what they are told to; whether each was to begin early."""

    def __init__(self, *outcomes: SdeiError | None, slow: float = 0.0) -> None:
        self.early: list[bool] = []
        self._outcomes: Iterator[SdeiError | None] = iter(outcomes)
        self._slow = slow

    async def __call__(self, early: bool) -> MigrationResult:
        self.early.append(early)
        await asyncio.sleep(self._slow)
        outcome = next(self._outcomes)
        if outcome is not None:
            raise outcome
        return RESULT


def migrate(attempts: Attempts, route: str, hold: Hold | None = None, timeout: float = 60.0) -> list[str]:
    """Try it; return the phases that were told."""
    phases: list[str] = []
    options = MigrationOptions(route, hold=hold, timeout=timeout)
    result = asyncio.run(try_again(attempts, options, lambda step: phases.append(step.phase)))
    assert result.total_ms >= RESULT.total_ms
    return phases


@pytest.mark.parametrize("route", ["live", "postcopy"])
def test_until_no_service_is_busy(route: str) -> None:
    attempts = Attempts(BUSY, BUSY, None)
    assert migrate(attempts, route) == ["again", "again"]
    assert attempts.early == [True] * 3


@pytest.mark.parametrize("why", [BUSY, OLD])
def test_where_ram_is_shared_the_guest_is_stopped_then(why: SdeiError) -> None:
    attempts = Attempts(why, None)
    assert migrate(attempts, "shared") == ["again"]
    assert attempts.early == [True, False]


def test_not_for_ever() -> None:
    attempts = Attempts(*[BUSY] * 99)
    with pytest.raises(BusyError, match=f"^a service is busy.*attempts: {TRIES}.* by route copy"):
        migrate(attempts, "live")
    assert len(attempts.early) == TRIES
    attempts = Attempts(*[BUSY] * 99, slow=0.02)
    with pytest.raises(BusyError, match="attempts: 1\\)"):
        migrate(attempts, "live", timeout=0.01)


@pytest.mark.parametrize(
    ("route", "hold", "error"),
    [
        ("live", None, OLD),
        ("live", None, GuestError("QEMU has died")),
        ("live", Hold("running"), BUSY),
        ("shared", Hold("running"), BUSY),
        ("copy", None, BUSY),
    ],
)
def test_not_where_it_would_not_help(route: str, hold: Hold | None, error: SdeiError) -> None:
    attempts = Attempts(error, None)
    with pytest.raises(type(error), match=f"^{error}$"):
        migrate(attempts, route, hold)
    assert len(attempts.early) == 1


def test_time_counts_from_the_first() -> None:
    result = asyncio.run(try_again(Attempts(BUSY, None, slow=0.05), MigrationOptions("live"), lambda _: None))
    assert result.total_ms >= RESULT.total_ms + 50
