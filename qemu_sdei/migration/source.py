"""The side that a guest leaves: it is stopped, written down and sent, and can go on at any point of that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any, Final, Protocol

from qemu_sdei.errors import GuestError, GuestTimeoutError, LostGuestError, NotDeliveredError
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.options import Hold, Report, Step

_POLL: Final = 0.005
_BUSY_TRIES: Final = 100
_SETTLE: Final = 10.0
"""Seconds for what happens at once, or not at all."""
_OVER: Final = frozenset(("completed", "failed", "cancelled"))
MAX_BANDWIDTH: Final = 1 << 40
"""Bytes a second: QEMU's default of 128 MiB/s is for networks that others use too."""


class Side(Protocol):
    """One QEMU with its backend."""

    @property
    def name(self) -> str:
        """The guest's name there."""

    @property
    def path(self) -> Path:
        """The run directory."""

    async def start(self, timeout: float) -> None:
        """Start the processes; for a destination."""

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        """QMP. Raises `GuestError`."""

    def suspend(self) -> None:
        """The guest is being handed over: a backend that dies is not replaced, and what is typed is kept."""

    def resume(self) -> None:
        """The guest goes on here after all."""

    async def inherit(self, source: Any) -> None:
        """The guest is about to go on here and not at `source`."""


async def execute(side: Side, command: str, **arguments: object) -> Any:
    """Execute a QMP command; an underscore in a name stands for QMP's hyphen."""
    return await side.execute(command, {name.replace("_", "-"): value for name, value in arguments.items()})


class Source:
    """One departure."""

    def __init__(self, side: Side, link: BackendLink, hold: Hold | None, report: Report, timeout: float) -> None:
        """`link`: to the side's backend; `timeout`: seconds that QEMU may take to transfer."""
        self.side = side
        self._link = link
        self._hold = hold
        self._report = report
        self._timeout = timeout
        self._migrating = False
        self._stopped_by_us = False

    async def _execute(self, command: str, **arguments: object) -> Any:
        return await execute(self.side, command, **arguments)

    @staticmethod
    async def capabilities(side: Side, shared: bool) -> None:
        """Set what both sides of a migration must agree on."""
        wanted = [
            {"capability": "events", "state": True},
            {"capability": "x-ignore-shared", "state": shared},
        ]
        await execute(side, "migrate-set-capabilities", capabilities=wanted)

    async def reach_hold_point(self) -> None:
        """Wait until the guest is where it is to be migrated."""
        hold = self._hold
        if hold is None:
            return
        await self._link.request("hold", state=hold.state, event=hold.event, vcpu=hold.vcpu)
        self._report(Step("hold"))
        try:
            await self._link.request("held", timeout=hold.timeout)
        except GuestTimeoutError:
            raise GuestTimeoutError(
                f"hold point {hold.state!r} of event {hold.event:#x} on vCPU {hold.vcpu} was not reached within "
                f"{hold.timeout:g} s"
            ) from None

    async def stand_still(self) -> tuple[bool, int]:
        """Stop the vCPUs, and have the backend write the state document into the run directory.

        Returns:
            Whether the vCPUs ran, and the bytes of the document.
        """
        self.side.suspend()
        running = await self._stop()
        return running, await self._freeze()

    async def _stop(self) -> bool:
        """Stop the vCPUs. Returns whether they ran."""
        status = (await self._execute("query-status"))["status"]
        if status not in ("running", "paused"):
            raise GuestError(f"the guest cannot be moved or saved while QEMU says that it is {status!r}")
        if status == "running":
            self._stopped_by_us = True
            await self._execute("stop")
        return bool(status == "running")

    async def _freeze(self) -> int:
        """Have the backend write the state document. Returns its size."""
        hold = self._hold
        for _ in range(_BUSY_TRIES):
            try:
                answer = await self._link.request("freeze", drain=hold is None or hold.drain)
                break
            except NotDeliveredError:
                # A service is amid its micro-operations. They take microseconds: let the guest run on so far.
                if not self._stopped_by_us or hold is not None:
                    raise
                await self._execute("cont")
                await asyncio.sleep(_POLL)
                await self._execute("stop")
        else:
            raise NotDeliveredError("a service of the guest was busy with micro-operations each time that it was asked")
        return int(answer["bytes"])

    async def transfer(self, uri: str, *, shared: bool) -> dict[str, Any]:
        """Have QEMU migrate to `uri`; `shared`: without RAM. Returns what QEMU says of it at the end."""
        await self.capabilities(self.side, shared)
        await self._execute("migrate-set-parameters", max_bandwidth=MAX_BANDWIDTH)
        self._migrating = True
        await self._execute("migrate", uri=uri)
        deadline = time.monotonic() + self._timeout
        begin = time.monotonic()
        while True:
            info: dict[str, Any] = await self._execute("query-migrate")
            status = info.get("status")
            numbers = info.get("ram", {})
            total, left = int(numbers.get("total", 0)), int(numbers.get("remaining", 0))
            elapsed = max(time.monotonic() - begin, 1e-3)
            self._report(Step("ram", total - left, total, (total - left) / elapsed))
            if status in _OVER:
                break
            if time.monotonic() > deadline:
                raise GuestTimeoutError(f"QEMU did not transfer the guest within {self._timeout:g} s")
            await asyncio.sleep(_POLL)
        self._migrating = False
        if status != "completed":
            raise GuestError(f"QEMU's migration has {status}: {info.get('error-desc', 'it does not say why')}")
        return info

    async def go_on(self) -> None:
        """The guest goes on here, as if nothing had been."""
        with contextlib.suppress(LostGuestError):
            if self._migrating:
                with contextlib.suppress(GuestError):
                    await self._execute("migrate_cancel")
                await self._wait_cancelled()
            # Closed, not asked to thaw: whatever it has heard of this connection, that ends the freeze.
            self._link.close()
            self.side.resume()
            if self._stopped_by_us:
                await self._execute("cont")

    async def _wait_cancelled(self) -> None:
        deadline = time.monotonic() + _SETTLE
        while (await self._execute("query-migrate")).get("status") not in _OVER:
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(_POLL)
