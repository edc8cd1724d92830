"""The receiving side's connections: who they are, to which attempt they belong, and how an attempt ends.

`Reception` serves one attempt (receiver_session.py) at a time until a guest runs here; when one fails, nothing is left
of it. The order of things is the source's: sequence.py, and what it says to this side: destination_remote.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import deque
from typing import Any, Final

from qemu_sdei.errors import ProtocolError, SdeiError
from qemu_sdei.migration.receiver_session import AFTER, SOCKET, Host, Report, Session
from qemu_sdei.migration.remote_link import (
    BUFFER,
    CHANNELS,
    CONTROL,
    MAX_HELLO,
    MAX_LINE,
    OUTCOME,
    PROTOCOL,
    Link,
    LostPeerError,
    clean,
    splice,
)

_HELLO: Final = 10.0
_STRANGERS: Final = 16
"""Connections at once that have not said who they are."""
_REMEMBERED: Final = 16
"""Attempts whose end can be asked for."""
_CHANNELS: Final = 64
"""Connections at once for RAM."""
_DECIDED: Final = 15.0


class Reception:
    """Takes connections until a guest has arrived."""

    def __init__(self, host: Host, token: str, report: Report) -> None:
        """`token`: what a control channel must know; empty where the way here is proof enough."""
        self.arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when a guest runs here."""
        self.known = asyncio.Event()
        """The source knows that, or did not ask for a minute: nobody needs to listen any more."""
        self._host = host
        self._token = token
        self._report = report
        self._session: Session | None = None
        self._sessions: deque[Session] = deque(maxlen=_REMEMBERED)
        self._free = asyncio.Event()
        self._free.set()
        self._strangers = 0
        self._failing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def accept(self, link: Link) -> None:
        """Take one connection, to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._accept(link)
        except asyncio.CancelledError:
            pass  # we end
        finally:
            self._tasks.discard(task)
            link.abort()

    async def close(self) -> None:
        """Hang up on everybody."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._failing is not None:
            await self._failing

    async def _accept(self, link: Link) -> None:
        if self._strangers >= _STRANGERS:
            return
        self._strangers += 1
        link.limit = MAX_HELLO
        try:
            hello = await link.receive(_HELLO)
            channel, token = hello.get("channel"), hello.get("token")
            if hello.get("qemu-sdei") != PROTOCOL or channel not in CHANNELS or not isinstance(token, str):
                raise ProtocolError(f"this is `qemu-sdei receive`, which speaks protocol {PROTOCOL}")
            session = None
            if channel == CONTROL:
                self._check_token(token, self._token)
                with contextlib.suppress(TimeoutError):
                    # One that was broken off may just be cleared away.
                    async with asyncio.timeout(_HELLO):
                        await self._free.wait()
                if self._session is not None:
                    raise SdeiError("another guest is arriving here, or has arrived")
            else:
                session = self._of(token, channel)
        except SdeiError as error:
            with contextlib.suppress(LostPeerError):
                await link.send({"ok": False, "error": str(error)})
            with contextlib.suppress(OSError, TimeoutError):
                await link.close()
            return
        finally:
            self._strangers -= 1
        link.limit = MAX_LINE
        if channel == CONTROL:
            await self._control(link)
        elif session is not None and channel == OUTCOME:
            await self._tell(link, session)
        elif session is not None:
            await self._ram(link, session)

    def _of(self, token: str, channel: str) -> Session:
        """The attempt that a channel belongs to; of one that failed it may only be asked what became of it."""
        for session in self._sessions:
            known = hmac.compare_digest(token.encode(errors="replace"), session.secret.encode())
            if known and (channel == OUTCOME or session is self._session):
                return session
        raise SdeiError("nothing is known of that guest here")

    @staticmethod
    def _check_token(given: str, wanted: str) -> None:
        if not hmac.compare_digest(given.encode(errors="replace"), wanted.encode()):
            raise SdeiError("the token is wrong: `qemu-sdei receive` has printed the right one")

    async def _control(self, link: Link) -> None:
        session = self._session = Session(self._host, link, self._report)
        self._free.clear()
        self._sessions.append(session)
        try:
            await link.send({"ok": True, "protocol": PROTOCOL})
            await session.serve()
        except (SdeiError, asyncio.CancelledError) as error:
            await self._end(session, error)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        except Exception as error:  # hostile input may find what nobody thought of: it must not get any further
            await self._end(session, SdeiError(f"{type(error).__name__}: {error}"))
            return
        if not self.arrived.done():
            self.arrived.set_result(None)
        await session.farewell()
        if not session.over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AFTER):
                    await session.over.wait()
        self.known.set()

    async def _end(self, session: Session, error: BaseException) -> None:
        """`_fail`, which is not broken off by a cancellation."""
        self._failing = asyncio.create_task(self._fail(session, error))
        await asyncio.shield(self._failing)

    async def _fail(self, session: Session, error: BaseException) -> None:
        """The guest does not run here, and never will."""
        session.decide("ended")
        reason = clean(error) or "it was ended"
        await self._host.abandon()
        # Only now: who hears of it can count on that.
        with contextlib.suppress(LostPeerError):
            await session.link.send({"ok": False, "error": reason})
            await session.link.close()
        self._report("failed", reason)
        self._session = None
        self._free.set()

    async def _tell(self, link: Link, session: Session) -> None:
        """What became of the guest, as soon as that is known."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DECIDED):
                await session.decided.wait()
        with contextlib.suppress(LostPeerError):
            await link.send({"ok": True, "outcome": session.outcome or "unknown"})
            if session.outcome == "running":
                session.over.set()
            await link.close()

    async def _ram(self, link: Link, session: Session) -> None:
        """Connect the source's QEMU with ours."""
        if session.side is None or session.channels >= _CHANNELS:
            return
        session.channels += 1
        try:
            qemu = await asyncio.open_unix_connection(str(session.side.path / SOCKET), limit=BUFFER)
        except OSError as error:
            with contextlib.suppress(LostPeerError):
                await link.send({"ok": False, "error": f"the destination's QEMU takes no connection: {error.strerror}"})
                await link.close()
            return
        with contextlib.suppress(LostPeerError):
            await link.send({"ok": True})
            await splice((link.reader, link.writer), qemu)
