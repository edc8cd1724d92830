"""JSON lines: one object a line, between our processes, to QEMU and to other hosts.

Here are framing, limits, and how a refusal becomes an exception on the other side. What is asked by such lines, and how
long an answer may take, is the business of the modules that use this. A line from outside is never trusted: it is
parsed by `bounded.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import bounded
from qemu_sdei.errors import BusyError, GuestError, NotDeliveredError, ProtocolError, SdeiError, UsageError

if TYPE_CHECKING:
    import asyncio

_END: Final = b"\n"


class TooLongError(ProtocolError):
    """A line has more bytes than it may have."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"{what} has more than {limit >> 10} KiB")


def encode(message: Mapping[str, Any]) -> bytes:
    """`message` as a line, its end included."""
    return json.dumps(message).encode() + _END


def decode(line: bytes, what: str = "a message") -> dict[str, Any]:
    """The object that a line is; `what` names it in errors. The length of the line is the caller's to bound.

    Raises:
        ProtocolError: it is no JSON, no object, or has more parts than `bounded.loads` takes.
    """
    try:
        message = bounded.loads(line)
    except ValueError:
        raise ProtocolError(f"{what} is not JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"{what} is not a JSON object")
    return message


class Lines:
    """What has come of a stream, line by line. For sockets that are read by hand; asyncio's are read by `read`."""

    def __init__(self, limit: int, what: str = "a message") -> None:
        """`limit`: bytes that may come without the end of a line among them. `what` names a line in errors."""
        self._limit, self._what = limit, what
        self._data = bytearray()

    def __len__(self) -> int:
        """How many bytes wait."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Add what has come."""
        self._data += data

    def next(self) -> bytes | None:
        """The next line without its end; None: it has not come as a whole. Raises `TooLongError`."""
        end = self._data.find(_END)
        if end < 0:
            if len(self._data) > self._limit:
                raise TooLongError(self._what, self._limit)
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 1]
        return line

    def clear(self) -> None:
        """Forget what waits."""
        self._data.clear()


async def read(reader: asyncio.StreamReader, limit: int, what: str = "a message") -> dict[str, Any] | None:
    """The next object of a stream; None at its end, where the last line may be cut off.

    Raises:
        TooLongError: the line has more than `limit` bytes, or than `reader` takes. `ProtocolError`: as `decode`.
    """
    import asyncio  # who has a reader has it already; the backend never needs it

    try:
        line = await reader.readuntil(_END)
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise TooLongError(what, limit) from None
    if len(line) > limit:
        raise TooLongError(what, limit)
    return decode(line, what)


# ---- answers ---------------------------------------------------------------------------------------------------------


class Kinds:
    """The kinds of refusals in one protocol, and the exception that each one is. The last is for all that is not named.

    A refusal is `{"ok": false, "error": {"kind": ..., "message": ...}}`.
    """

    def __init__(self, **kinds: type[SdeiError]) -> None:
        """Of several that an exception belongs to, the first is told."""
        self._kinds = kinds
        self._other, self._other_type = list(kinds.items())[-1]

    def refusal(self, error: SdeiError) -> dict[str, Any]:
        """The answer that tells of `error`."""
        found = (kind for kind, type_ in self._kinds.items() if isinstance(error, type_))
        return refusal(next(found, self._other), str(error))

    def exception(self, error: Mapping[str, Any]) -> SdeiError:
        """The exception that the field `error` of a refusal tells of."""
        return self._kinds.get(str(error.get("kind")), self._other_type)(str(error.get("message", "no reason given")))

    def result(self, answer: Mapping[str, Any], what: str) -> dict[str, Any]:
        """The result that an answer brings; `what` names the answer in errors.

        Raises:
            ProtocolError: it is no answer. The exception that a refusal tells of.
        """
        if answer.get("ok") is True and isinstance(answer.get("result"), dict):
            return dict(answer["result"])
        raise self.exception(error_of(answer, what))


CONTROL: Final = Kinds(
    usage=UsageError, busy=BusyError, state=NotDeliveredError, moved=NotDeliveredError, internal=SdeiError
)
"""Refusals of a backend's control socket."""
SUPERVISOR: Final = Kinds(usage=UsageError, failed=GuestError)
"""Refusals of a supervisor's socket."""


def success(result: Mapping[str, Any]) -> dict[str, Any]:
    """An answer that brings a result."""
    return {"ok": True, "result": result}


def refusal(kind: str, message: str, **more: str) -> dict[str, Any]:
    """An answer that says no."""
    return {"ok": False, "error": {"kind": kind, "message": message, **more}}


def error_of(answer: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The field `error` of a refusal. Raises `ProtocolError`: `answer` is none."""
    error = answer.get("error")
    if answer.get("ok") is not False or not isinstance(error, dict):
        raise ProtocolError(f"{what} is not of the protocol's form")
    return error
