"""QEMU's migration is cancelled, and its end waited for: QEMU then lets vCPUs run again that it had stopped for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from qemu_sdei.errors import GuestError
from qemu_sdei.vm.qmp import Machine

_OVER: Final = frozenset(("completed", "failed", "cancelled", "none"))
"""States of a migration that is none any more. "none": QEMU had refused to begin."""
_CANCELLING: Final = "cancelling"
_STUCK: Final = 0.5
"""Seconds until QEMU's thread is taken to sleep; on a busy host it may only be late, and is not harmed by the word."""
_POLL: Final = 0.002


async def cancel(machine: Machine, limit: float) -> bool:
    """Cancel the migration that QEMU is in; True when it is over, False if it is not within `limit` seconds.

    QEMU 7.2 can lose a `migrate_cancel` that comes when it has just stopped the vCPUs for the pause before the
    switchover: its thread then waits in that pause for ever, with the vCPUs stopped. What ends the pause wakes it there
    as well.

    Raises `GuestError`: QMP is gone.
    """
    with contextlib.suppress(GuestError):
        await machine.execute("migrate_cancel", {})
    now = time.monotonic()
    deadline, nudge = now + limit, now + _STUCK
    while (status := (await machine.execute("query-migrate", {})).get("status", "none")) not in _OVER:
        now = time.monotonic()
        if now > deadline:
            return False
        if status == _CANCELLING and now > nudge:
            with contextlib.suppress(GuestError):  # refused where it has become another state meanwhile
                await machine.execute("migrate-continue", {"state": _CANCELLING})
            nudge = now + _STUCK
        await asyncio.sleep(_POLL)
    return True
