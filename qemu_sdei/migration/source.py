"""The side that a guest leaves: it is paused, written down and sent, and can be resumed at any point of that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any, Final, Protocol

from qemu_sdei.errors import (
    BusyError,
    GuestError,
    GuestTimeoutError,
    LostGuestError,
    StandsStillError,
    UnreachableError,
)
from qemu_sdei.migration.backend_link import BackendLink
from qemu_sdei.migration.cancelling import cancel
from qemu_sdei.migration.options import POSTCOPY, SHARED, Hold, MigrationOptions, Report, Step

_POLL: Final = 0.001
_BUSY_TRIES: Final = 100
_SETTLE: Final = 10.0
"""Seconds for what happens at once, or not at all."""
_HEARTBEAT: Final = 0.25
"""Seconds to wait for a heartbeat, which shows that the guest runs: it is only for telling its downtime."""
_BEATS_LIVE: Final = 5
_BEATS: Final = 1
"""Milliseconds between heartbeats: one is an interrupt and costs some 50 µs; RAM may be sent for minutes."""
_DOWNTIME_LIMIT: Final = 300
"""Milliseconds: QEMU's default. What can be sent in that time it stops the vCPUs for."""
_FETCH_LIMIT: Final = 1
"""The same where the rest is to be fetched by the destination, and not to be waited for."""
_TO_FETCH: Final = 0.25
"""Of RAM: so much may be left for the destination to fetch."""
_SLOW: Final = 10 << 10
"""Bytes a second while a hold point is waited for: with pages of zeroes, some 4 MiB of RAM."""
_RETRY: Final = 0.2
_AGAIN: Final = 0.02
_STOPPED: Final = frozenset(("finish-migrate", "postmigrate", "paused"))
"""QEMU's words for a guest whose vCPUs are stopped for a migration, or by us."""
_OVER: Final = frozenset(("completed", "failed", "cancelled"))
_RUNNING: Final = frozenset(("none", "setup", "active"))
_PAUSED: Final = frozenset(("pre-switchover",))
_COMPLETED: Final = frozenset(("completed",))
_FETCHING: Final = frozenset(("postcopy-active", "completed"))
MAX_BANDWIDTH: Final = 1 << 40
"""Bytes a second: QEMU's default of 128 MiB/s is for networks that others use too."""


_LATER: Final[set[asyncio.Task[None]]] = set()
"""Guests that are paused, and resumed when their QEMU can be reached: an event loop keeps no task alive by itself."""


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

    async def pass_fd(self, name: str, fd: int) -> None:
        """Give QEMU a descriptor of ours, for URIs `fd:NAME`. Raises `GuestError`."""

    def leaves(self) -> None:
        """The guest is being handed over: a backend that dies is not replaced, and what is typed is kept."""

    def stays(self) -> None:
        """The guest goes on here after all."""

    async def kill(self) -> None:
        """End QEMU at once; returns when nothing of the guest runs in it any more."""

    async def last_words(self) -> str:
        """Why a QEMU that ended, or is about to, did not take the guest that arrived; "" if it does not say."""

    async def inherit(self, source: Any) -> None:
        """The guest is about to go on here and not at `source`."""

    def give_back(self) -> None:
        """It goes on at the source after all."""


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
        self._running = False
        """As `runs` has found it."""
        self._prepared = False
        self._ran = time.monotonic()
        """When the vCPUs were last known to run."""
        self.heartbeat_ns: int | None = None
        """When the guest itself was last seen to run, by `time.perf_counter_ns`; after the freeze."""

    async def _execute(self, command: str, **arguments: object) -> Any:
        return await execute(self.side, command, **arguments)

    @staticmethod
    async def capabilities(side: Side, options: MigrationOptions, *, early: bool | None = None) -> None:
        """Set what both sides of a migration must agree on. `early`: QEMU begins while the vCPUs run; None: where it is
        live.
        """
        wanted = {
            "events": True,
            "x-ignore-shared": options.route == SHARED,
            "multifd": options.multifd > 0,
            "postcopy-ram": options.route == POSTCOPY,
            # QEMU stops the vCPUs, and waits for our word before it sends what is left.
            "pause-before-switchover": options.live if early is None else early,
        }
        await execute(
            side,
            "migrate-set-capabilities",
            capabilities=[{"capability": name, "state": state} for name, state in wanted.items()],
        )
        if options.multifd:
            await execute(side, "migrate-set-parameters", multifd_channels=options.multifd)

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

    async def ask_for_heartbeats(self, *, live: bool) -> None:
        """Have the guest show that it runs, until it is paused. With a hold point it has shown that by reaching it.
        `live`: that may take long.
        """
        if self._hold is None and await self.runs():
            with contextlib.suppress(GuestTimeoutError):
                every = _BEATS_LIVE if live else _BEATS
                await self._link.request("signs", timeout=_HEARTBEAT, every_ms=every)

    async def pause(self) -> tuple[bool, int]:
        """Stop the vCPUs, and have the backend write the state document into the run directory.

        Returns:
            Whether the vCPUs ran, and the bytes of the document.
        """
        self.side.leaves()
        running = await self._stop()
        return running, await self._freeze()

    async def writes(self) -> tuple[int, int]:
        """How often the guest was reset, and hardware errors were reported to it: both write RAM, and whoever sends RAM
        wants to know whether that has changed meanwhile.
        """
        found = await self._link.request("hello")
        return int(found["epoch"]), int(found.get("reports", 0))

    async def announce(self, name: str, control: str) -> None:
        """Have the backend tell its clients where the guest is now: `name`, and its control socket, if it has one here.

        Raises `SdeiError`: they do not hear of it.
        """
        await self._link.request("moved", name=name, control=control)

    async def runs(self) -> bool:
        """Whether the vCPUs run. Raises `GuestError`: the guest is in a state that it cannot leave from."""
        status = (await self._execute("query-status"))["status"]
        if status not in ("running", "paused"):
            raise GuestError(f"the guest cannot be moved or saved while QEMU says that it is {status!r}")
        self._running = bool(status == "running")
        return self._running

    async def _stop(self) -> bool:
        """Stop the vCPUs. Returns whether they ran."""
        running = await self.runs()
        if running:
            self._stopped_by_us = True
            await self._execute("stop")
        return running

    async def _freeze(self, *, live: bool = False) -> int:
        """Have the backend write the state document. Returns its size."""
        hold = self._hold
        for _ in range(_BUSY_TRIES):
            try:
                answer = await self._link.request("freeze", drain=hold is None or hold.drain)
                break
            except BusyError:
                # Micro-operations take microseconds: let the guest run on so far. Where QEMU has stopped it by itself
                # it cannot.
                if not self._stopped_by_us or hold is not None or live:
                    raise
                await self._execute("cont")
                await asyncio.sleep(_POLL)
                await self._execute("stop")
        else:
            raise BusyError("a service of the guest had micro-operations in flight each time that the guest was paused")
        self.heartbeat_ns = answer["sign_ns"]
        return int(answer["bytes"])

    async def transfer(self, uri: str, options: MigrationOptions) -> dict[str, Any]:
        """Have QEMU migrate the stopped guest to `uri`. Returns what QEMU says of it at the end."""
        await self.begin(uri, options)
        return await self._until(_COMPLETED)

    async def prepare(self, options: MigrationOptions, *, early: bool | None = None) -> None:
        """Tell QEMU how it is to migrate; best while the guest still runs, since it takes milliseconds. `early`: see
        `capabilities`.
        """
        await self.capabilities(self.side, options, early=early)
        slow = options.live and self._hold is not None
        await self._execute(
            "migrate-set-parameters",
            max_bandwidth=_SLOW if slow else MAX_BANDWIDTH,
            downtime_limit=_FETCH_LIMIT if options.route == POSTCOPY else _DOWNTIME_LIMIT,
        )
        self._prepared = True

    async def begin(self, uri: str, options: MigrationOptions) -> None:
        """Have QEMU start to migrate to `uri`; of a running guest with a hold point, only go on with it from there."""
        if not self._prepared:
            await self.prepare(options)
        slow = options.live and self._hold is not None
        self._migrating = True
        await self._execute("migrate", uri=uri)
        if slow:
            await self.reach_hold_point()
            await self._execute("migrate-set-parameters", max_bandwidth=MAX_BANDWIDTH)

    async def converge(self, *, postcopy: bool) -> float:
        """Wait until QEMU has stopped the vCPUs because little is left to send; with `postcopy`, because most was sent.

        Returns:
            When they still ran, in seconds of `time.monotonic`.
        """
        if postcopy:
            await self._until(_PAUSED, left=_TO_FETCH)
            with contextlib.suppress(GuestError):
                # Refused where it has come to that state by itself meanwhile.
                await self._execute("migrate-start-postcopy")
        await self._until(_PAUSED)
        return self._ran

    async def switch_over(self) -> int:
        """In QEMU's pause: write the state document. Returns its bytes."""
        self.side.leaves()
        self._stopped_by_us = self._running  # by QEMU for us: when it has sent everything it does not have them go on
        return await self._freeze(live=True)

    async def complete(self, *, postcopy: bool) -> dict[str, Any]:
        """Have QEMU send what is left; with `postcopy`, only what the destination needs to go on."""
        await self._execute("migrate-continue", state="pre-switchover")
        return await self._until(_FETCHING if postcopy else _COMPLETED)

    async def fetched(self) -> dict[str, Any]:
        """Wait until the destination has fetched all RAM."""
        return await self._until(_COMPLETED, phase="fetch")

    async def _until(self, wanted: frozenset[str], *, left: float = -1.0, phase: str = "ram") -> dict[str, Any]:
        """Wait until QEMU's migration is in a state that is `wanted`, or no more than `left` of RAM is to be sent."""
        begin = time.monotonic()
        while True:
            asked = time.monotonic()
            info: dict[str, Any] = await self._execute("query-migrate")
            status = info.get("status")
            numbers = info.get("ram", {})
            total, remaining = int(numbers.get("total", 0)), int(numbers.get("remaining", 0))
            elapsed = max(asked - begin, 1e-3)
            self._report(Step(phase, total - remaining, total, int(numbers.get("transferred", 0)) / elapsed))
            if status in _OVER:
                self._migrating = False
            if status in wanted:
                return info
            if status in _OVER:
                why = info.get("error-desc", "it does not say why")
                raise GuestError(f"QEMU's migration has {status}: {why}")
            if status in _RUNNING:
                self._ran = asked
            if total and remaining <= left * total:
                return info
            if asked - begin > self._timeout:
                raise GuestTimeoutError(f"QEMU did not transfer the guest within {self._timeout:g} s")
            await asyncio.sleep(_POLL)

    async def resume(self) -> None:
        """Resume the guest here, as if nothing had been; QEMU is told so until it can be reached.

        Raises `StandsStillError`: QEMU cannot be reached now, or does not come to an end with its migration.
        """
        try:
            await self._take_back()
        except UnreachableError as error:
            task = asyncio.create_task(self._resume_later())
            _LATER.add(task)
            task.add_done_callback(_LATER.discard)
            raise StandsStillError(
                f"the guest is paused as {self.side.name!r}; it is resumed as soon as its QEMU can be reached ({error})"
            ) from None

    async def _resume_later(self) -> None:
        while True:
            with contextlib.suppress(UnreachableError):
                await self._take_back()
                return
            await asyncio.sleep(_RETRY)

    async def _take_back(self) -> None:
        for last in (False, True):
            try:
                over = not self._migrating or await cancel(self.side, _SETTLE)
                # Closed, not asked to thaw: whatever it has heard of this connection, that ends the freeze.
                self._link.close()
                self.side.stays()
                if self._stopped_by_us:
                    await self._execute("cont")
                if self._running:
                    await self._runs_again(over)
                return
            except LostGuestError:
                if last:  # QEMU has ended; or else only the connection had broken, and there is another one
                    return

    async def _runs_again(self, over: bool) -> None:
        """See that the vCPUs run, which QEMU had stopped for a migration, or we had. `over`: that has been cancelled.

        Raises `StandsStillError`: they do not.
        """
        deadline = time.monotonic() + _SETTLE
        while (status := str((await self._execute("query-status"))["status"])) in _STOPPED:
            if not over or time.monotonic() > deadline:
                raise StandsStillError(f"the guest is paused as {self.side.name!r}: QEMU says {status!r}, and stays so")
            with contextlib.suppress(GuestError):  # refused while QEMU is not done with its migration
                await self._execute("cont")
            await asyncio.sleep(_AGAIN)
