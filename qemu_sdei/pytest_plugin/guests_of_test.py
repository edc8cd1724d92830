"""Which guests a test has: for its report, if it fails, and for whoever wants each call of firmware in the log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest

LOGGER: Final = "qemu_sdei.firmware"
"""Logger with a line for each trace record of a test, at level DEBUG."""
_GUESTS: Final = pytest.StashKey["list[Guest]"]()
_RECORDS: Final = 1000


@contextmanager
def remember(request: pytest.FixtureRequest, guest: Guest) -> Iterator[None]:
    """Count `guest` as one of the test's, as long as the fixture lives."""
    guests: list[Guest] = request.node.stash.setdefault(_GUESTS, [])
    guests.append(guest)
    after = _newest(guest) if _logged() else 0
    try:
        yield
    finally:
        guests.remove(guest)
        if _logged():
            _log(guest, after)


def guests_of(item: pytest.Item) -> list[Guest]:
    """The guests that a test has now."""
    found: list[Guest] = item.stash.get(_GUESTS, [])
    return list(found)


def _logged() -> bool:
    return logging.getLogger(LOGGER).isEnabledFor(logging.DEBUG)


def _newest(guest: Guest) -> int:
    newest = guest.trace(1)
    return int(newest[-1]["n"]) if newest else 0


def _log(guest: Guest, after: int) -> None:
    from qemu_sdei.errors import SdeiError
    from qemu_sdei.trace.columns import Columns

    columns, logger = Columns(), logging.getLogger(LOGGER)
    with contextlib.suppress(SdeiError):  # the guest may be gone
        for record in guest.trace(_RECORDS):
            if record["n"] > after:
                logger.debug("%s: %s", guest.name, columns.line(record))
