"""What a guest prints from now on, for other processes: the request `console` of its owner socket, and who asks it.

The owner has the console, and a guest that panics says so nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from qemu_sdei.errors import GuestTimeoutError, SdeiError, UsageError
from qemu_sdei.guest.onlookers import Typist
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.supervisor_client import ask
from qemu_sdei.guest.supervisor_socket import Command, Progress

_LOOK: Final = 0.05
"""Seconds between two looks at the console."""
_PART: Final = 8192
"""Characters of one report."""
_ALIVE: Final = 1.0
"""Seconds after which one that does not print is told of as well, so that who listens can stop."""
_KEYS: Final = 0.02
"""The same where somebody types, and wants to see it."""
_SHOWN: Final = 2048
"""Characters of what was printed before that who looks on is shown first."""
_BACKLOG: Final = 64 << 10
"""Bytes that may wait for the guest to read them."""
_BEGUN: Final = 10.0
"""Seconds for the owner to answer at all."""
LIMIT: Final = 4 << 20
"""Characters that are kept of what came."""


class _Looker:
    """The bytes of one console on their way to one process; bounded, the guest never waits."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.lost = 0

    def __call__(self, data: bytes) -> None:
        self._data += data
        self.lost += max(len(self._data) - LIMIT, 0)
        del self._data[:-LIMIT]

    def take(self, most: int) -> bytes:
        """The next of them."""
        data = bytes(self._data[:most])
        del self._data[:most]
        return data


class PrintedWords(Protocol):
    """What a guest has printed since a moment."""

    @property
    def text(self) -> str:
        """All of it, up to `LIMIT` characters."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""


class ConsoleFeed:
    """Tells other processes what one guest prints, in the guest's event loop."""

    def __init__(self, record: GuestRecord) -> None:
        self._record = record

    @property
    def commands(self) -> dict[str, Command]:
        """The request by its name."""
        return {"console": self._requested, "terminal": self._terminal, "type": self._typed}

    async def _terminal(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Reports `{"data": base64}` of what the console shows until the client hangs up or the guest ends, the first
        with what it showed last, and `{"typist": words}` when somebody else types than before.

        `token` and `who`: by which the client wants to type, and what others are told of it; `force`: also where
        somebody types. Without them it looks on.
        """
        token, who = str(request.get("token", ""))[:64], str(request.get("who", ""))[:200]
        seat, onlookers, console = self._record.seat, self._record.onlookers, self._record.console
        if token:
            seat.take(Typist(token, who), force=request.get("force") is True)
        looker = _Looker()
        onlookers.add(looker)
        try:
            progress({"data": _base64(console.text[-_SHOWN:].replace("\n", "\r\n").encode())})
            typist: Typist | None = Typist("", "")
            silent = 0.0
            while True:
                data = looker.take(_PART)
                if seat.typist != typist:
                    typist = seat.typist
                    progress({"typist": "" if typist is None else typist.who, "you": seat.has(token)})
                if data:
                    progress({"data": _base64(data)})
                elif silent >= _ALIVE:
                    progress({})
                elif console.closed:
                    return {}
                silent = 0.0 if data or silent >= _ALIVE else silent + _KEYS
                await asyncio.sleep(0 if data else _KEYS)
        finally:
            onlookers.remove(looker)
            if token:
                seat.leave(token)

    async def _typed(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """`data` (base64) is typed at the console by the client of `terminal` with that `token`. Raises `UsageError`:
        somebody else types; the request is none.
        """
        token, seat = str(request.get("token", "")), self._record.seat
        try:
            data = base64.b64decode(str(request.get("data", "")), validate=True)
        except ValueError:
            raise UsageError("what is typed is sent as base64") from None
        if token and seat.typist is None:
            seat.take(Typist(token, str(request.get("who", ""))[:200]), force=False)
        if not token or not seat.has(token):
            typist = seat.typist
            raise UsageError("nobody types" if typist is None else f"{typist.who} types at this console")
        supervisor = self._record.supervisor
        while supervisor.backlog > _BACKLOG:  # who types waits, and nothing piles up here
            await asyncio.sleep(_KEYS)
        supervisor.write(data)
        return {}

    async def _requested(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Reports `{"text": ...}` until the client hangs up or the guest ends; the first is empty."""
        console = self._record.console
        at = console.end
        progress({"text": ""})
        silent = 0.0
        while True:
            text, end = console.since(at)
            if text:
                for start in range(0, len(text), _PART):
                    progress({"text": text[start : start + _PART]})
            elif silent >= _ALIVE:
                progress({"text": ""})
            elif console.closed:
                return {}
            silent = 0.0 if text or silent >= _ALIVE else silent + _LOOK
            at = end
            await asyncio.sleep(_LOOK)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class _StoppedError(Exception):
    """Nobody wants to hear more."""


class RemoteConsole:
    """What the guest of another process prints from now on, read in a thread of its own: use it in a `with`."""

    def __init__(self, owner: Path, identity: str = "") -> None:
        """`owner` is the guest's owner socket. Raises `SdeiError`: it has no owner, or does not answer."""
        self._parts: list[str] = []
        self._size = 0
        self._begun = threading.Event()
        self._stopped = False
        self.ended = False
        self._failure: SdeiError | None = None
        self._thread = threading.Thread(target=self._read, args=(owner, identity), daemon=True)
        self._thread.start()
        if not self._begun.wait(_BEGUN):
            self._stopped = True
            raise GuestTimeoutError(f"the guest's owner did not give its console within {_BEGUN:g} s")
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> RemoteConsole:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, within a second."""
        self._stopped = True

    @property
    def text(self) -> str:
        """See `PrintedWords`."""
        return "".join(self._parts)

    def _read(self, owner: Path, identity: str) -> None:
        try:
            ask(owner, "console", {}, self._hear, identity=identity)
        except _StoppedError:
            pass
        except SdeiError as error:
            if not self._begun.is_set():
                self._failure = error
        finally:
            self.ended = True
            self._begun.set()

    def _hear(self, step: dict[str, Any]) -> None:
        if self._stopped:
            raise _StoppedError
        text = step.get("text")
        if isinstance(text, str) and self._size < LIMIT:
            self._parts.append(text)
            self._size += len(text)
        self._begun.set()


class OwnConsole:
    """What the guest of this process prints from now on."""

    def __init__(self, since: Callable[[int], tuple[str, int]], end: int, closed: Callable[[], bool]) -> None:
        """`since` and `end` are those of `Console`; `closed`: whether the guest has ended."""
        self._since, self._end, self._closed = since, end, closed

    @property
    def text(self) -> str:
        """See `PrintedWords`."""
        return self._since(self._end)[0]

    @property
    def ended(self) -> bool:
        """See `PrintedWords`."""
        return self._closed()
