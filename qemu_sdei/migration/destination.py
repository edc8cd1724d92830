"""The side where a guest arrives: QEMU first, then the backend; nothing runs before both have it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.source import Side, execute

_POLL: Final = 0.005
_SETTLE: Final = 10.0
"""Seconds for what happens at once, or not at all."""


async def arrived(side: Side, limit: float = _SETTLE) -> None:
    """Wait up to `limit` seconds until QEMU has taken the guest, and stands still with it.

    Raises:
        GuestError: it has not.
    """
    deadline = time.monotonic() + limit
    while True:
        there: dict[str, Any] = await execute(side, "query-migrate")
        state = (await execute(side, "query-status"))["status"]
        if there.get("status") == "completed" and state != "inmigrate":
            return
        if there.get("status") == "failed" or time.monotonic() > deadline:
            raise GuestError(f"the destination's QEMU did not take the guest: {there.get('status')}, {state}")
        await asyncio.sleep(_POLL)


async def take_over(side: Side) -> None:
    """Have the backend take the guest over, from the state document in the run directory.

    Raises:
        SdeiError: it does not take it; the message says why.
    """
    link = await BackendLink.open(side.path / rundir.CONTROL)
    try:
        await link.request("restore")
    finally:
        link.close()
        with contextlib.suppress(OSError):
            (side.path / rundir.STATE).unlink()
