"""The side where a guest arrives: QEMU first, then the backend; nothing runs before both have it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, LostGuestError, SdeiError
from qemu_sdei.host.lost_pages import PAGE
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.source import Side, execute

_POLL: Final = 0.001
_SETTLE: Final = 10.0
"""Seconds for what happens at once, or not at all."""
_HEARTBEAT: Final = 1.0
"""Seconds to wait for a heartbeat, which shows that the guest runs: it is only for telling its downtime."""


async def arrived(
    side: Side,
    limit: float = _SETTLE,
    *,
    postcopy: bool = False,
    refusal: str = "the destination's QEMU did not take the guest",
) -> None:
    """Wait up to `limit` seconds until QEMU has taken the guest, which is paused there; with `postcopy`, RAM is not
    all there.

    Raises:
        GuestError: it has not; the message begins with `refusal`.
    """
    deadline = time.monotonic() + limit
    wanted = ("completed", "postcopy-active") if postcopy else ("completed",)
    try:
        while True:
            there: dict[str, Any] = await execute(side, "query-migrate")
            state = (await execute(side, "query-status"))["status"]
            if there.get("status") in wanted and state != "inmigrate":
                return
            if there.get("status") == "failed" or time.monotonic() > deadline:
                raise GuestError(f"{refusal}: {there.get('status')}, {state}")
            await asyncio.sleep(_POLL)
    except LostGuestError as error:
        raise GuestError(f"{refusal}: {await side.last_words() or error}") from None


async def fetch(side: Side, addresses: range) -> None:
    """Have QEMU read guest RAM, so that the pages of `addresses` are fetched: one that another process touches first
    QEMU cannot put in place any more.
    """
    for page in range(addresses.start, addresses.stop, PAGE):
        await execute(side, "human-monitor-command", command_line=f"xp /1xb {page:#x}")


async def fetched(side: Side, limit: float) -> bool:
    """Wait up to `limit` seconds until QEMU has fetched all RAM from a source that cannot be asked; False: it has not,
    and the source may be gone.
    """
    deadline = time.monotonic() + limit
    while (status := (await execute(side, "query-migrate")).get("status")) == "postcopy-active":
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL)
    return bool(status == "completed")


async def _ask(side: Side, command: str, timeout: float = _SETTLE, **arguments: bool) -> dict[str, Any]:
    link = await BackendLink.open(side.path / rundir.CONTROL)
    try:
        return await link.request(command, timeout=timeout, **arguments)
    finally:
        link.close()


async def check(side: Side) -> None:
    """Have the backend check the state document in the run directory; it touches no guest RAM for that.

    Raises:
        SdeiError: it would not take it; the message says why.
    """
    await _ask(side, "check")


async def take_over(side: Side, *, arriving: bool = False) -> None:
    """Have the backend take the guest over, from the state document in the run directory.

    `arriving`: of guest RAM only what the backend shares with the monitor is there yet; `complete` says when all is.

    Raises:
        SdeiError: it does not take it; the message says why.
    """
    try:
        await _ask(side, "restore", arriving=arriving)
    finally:
        with contextlib.suppress(OSError):
            (side.path / rundir.STATE).unlink()


async def complete(side: Side) -> None:
    """Tell the backend that all RAM is there. Raises `SdeiError`."""
    await _ask(side, "arrived")


async def hand_back(side: Side, name: str, control: str, timeout: float = _SETTLE) -> None:
    """Have a backend that has taken the guest over let go of it for good: it goes on as `name`, whose control socket is
    `control`, maybe in the same RAM.

    Raises:
        SdeiError: it does not; a backend that has not taken it over refuses, and does not look at RAM either.
    """
    link = await BackendLink.open(side.path / rundir.CONTROL)
    try:
        await link.request("freeze", timeout=timeout, drain=False)
        await link.request("moved", timeout=timeout, name=name, control=control)
    finally:
        link.close()


async def first_heartbeat(side: Side) -> int | None:
    """When the guest was first seen to run here, by `time.perf_counter_ns`; None: it was not."""
    with contextlib.suppress(SdeiError):
        answer = await _ask(side, "first-sign", _HEARTBEAT)
        return int(answer["sign_ns"])
    return None
