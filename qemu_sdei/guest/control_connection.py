"""The connection by which a backend's control socket is asked: it connects again, and follows a guest that migrates.

What is asked is in `control_client.py`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from qemu_sdei import guest_identity, jsonline, rundir, stopped
from qemu_sdei.errors import GuestTimeoutError, LostGuestError, NotDeliveredError, UsageError
from qemu_sdei.message_log import CONTROL

MAX_LINE: Final = 1 << 20
_MAX_ANSWER: Final = 2 * MAX_LINE
"""Bytes of an answer: `status` of 512 vCPUs with a dozen private events is longer than a request may be."""
_STOPPED: Final = 5.0
"""Seconds that a backend has to come back where one of the guest's processes is stopped, whatever the limit."""
_RETRY: Final = 0.05
_ANSWER: Final = "the backend's answer"


class _MovedError(Exception):
    """The guest has migrated, and what was asked was not done; or, with a ticket, was, and is answered there."""

    def __init__(self, path: Path, ticket: str | None = None) -> None:
        self.path = path
        self.ticket = ticket


class ControlConnection:
    """A connection to one guest's backend; not for use by several threads at once.

    When the guest migrates, the connection follows it. It is bound to the guest, not to the path: when that guest has
    ended and another one has its name, each request is a `LostGuestError`.
    """

    def __init__(self, path: Path, *, identity: str, timeout: float, connect_timeout: float) -> None:
        """`path` is the control socket; `timeout` is what an answer may take, in seconds.

        `identity`: which guest is meant (`rundir.Running.identity`); "": the first that answers. To any other one that
        has that path later nothing is said.
        """
        self.path = path
        self.identity = identity
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self._socket: socket.socket | None = None
        self._lines = jsonline.Lines(_MAX_ANSWER, _ANSWER)
        self._number = 0
        self._moved_to: Path | None = None
        self._far_away = ""
        """Where the guest is, if that is another host."""

    def close(self) -> None:
        """Hang up; the next request connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._lines.clear()

    def _connect(self) -> socket.socket:
        if self._socket is not None and self._hung_up(self._socket):
            self.close()
        if self._socket is not None:
            return self._socket
        began = time.monotonic()
        limit = self.connect_timeout
        looked = False
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self.timeout)
            try:
                connection.connect(str(self.path))
            except OSError as error:
                connection.close()
                if self._far_away:
                    raise NotDeliveredError(f"the guest has moved to {self._far_away}; nothing was done here") from None
                if not self.path.parent.is_dir():
                    raise LostGuestError("the guest is gone") from None
                if self.identity and guest_identity.read(self.path.parent) not in ("", self.identity):
                    raise guest_identity.another(self.path.parent.name) from None
                if rundir.deserted(self.path.parent):
                    name = self.path.parent.name
                    raise LostGuestError(
                        f"guest {name!r} has lost its backend and has no owner to start another: it will wait at "
                        f"its next call until `qemu-sdei attach {name}`"
                    ) from None
                waited = time.monotonic() - began
                if waited >= _STOPPED and not looked:
                    looked = True
                    limit = min(limit, _STOPPED if self.reason() else limit)
                if waited >= limit:
                    raise LostGuestError(
                        f"the backend does not answer at {self.path} ({error.strerror or error}), "
                        f"tried for {limit:g} s{self.reason()}"
                    ) from None
                time.sleep(_RETRY)
            else:
                self._socket = connection
                try:
                    self._greet()
                except BaseException as error:
                    self.close()  # what did not say which guest it is must not be asked anything later
                    if not isinstance(error, OSError):
                        raise
                    # It ends just now, or the guest moves.
                    if self._moved_to is not None or self._far_away:
                        raise
                    if time.monotonic() - began >= limit:
                        raise LostGuestError(f"the backend at {self.path} goes away before it answers") from None
                    time.sleep(_RETRY)
                else:
                    return connection

    def _greet(self) -> None:
        """Look which guest is at the other end of a new connection, before anything is asked of it."""
        answer = self._ask("hello", {}, self.timeout)
        result = answer.get("result")
        found = result.get("identity") if isinstance(result, dict) else None
        if not guest_identity.is_one(found):
            found = ""  # a backend of an older version
        if self.identity and found != self.identity:
            raise guest_identity.another(self.path.parent.name)
        self.identity = str(found)

    @property
    def _whom(self) -> str:
        """Who is asked, for the debug log."""
        return f"backend of {self.path.parent.name}"

    def reason(self) -> str:
        """Which of the guest's processes are stopped, as the end of a message."""
        return stopped.reason(self.path.parent)

    def _hung_up(self, connection: socket.socket) -> bool:
        """Whether the backend is known to be gone before anything is asked of it: then nothing can be half done.

        What lies there unread is the answer to a request that was given up, or word of where the guest has moved.
        """
        # With a timeout Python waits for data before it even tries: MSG_DONTWAIT alone would wait that long.
        connection.setblocking(False)
        gone = False
        try:
            # Of a backend that tells of events faster than they are taken, no more than lies there now.
            while not gone and len(self._lines) < 4 * MAX_LINE:
                data = connection.recv(1 << 16)
                self._lines.feed(data)
                gone = not data
        except BlockingIOError:
            pass
        except OSError:
            gone = True
        while (line := self._next()) is not None:
            self._hear(jsonline.decode(line, _ANSWER))
        if gone and self._moved_to is not None:
            self.path, self._moved_to = self._moved_to, None
        return gone

    def _hear(self, message: dict[str, Any]) -> None:
        """Take note if this is word that the guest has moved."""
        moved = message.get("moved")
        if isinstance(moved, dict):
            self._moved_to = Path(str(moved["control"])) if moved.get("control") else None
            self._far_away = "" if moved.get("control") else str(moved.get("name"))

    def _line(self, deadline: float, what: str) -> bytes:
        connection = self._socket
        if connection is None:
            raise ConnectionResetError
        while (line := self._next()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                self.close()
                raise GuestTimeoutError(f"the backend did not answer {what} in time{self.reason()}")
            connection.settimeout(left)
            try:
                data = connection.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionResetError
            self._lines.feed(data)
        return line

    def _next(self) -> bytes | None:
        """The next line, if it is here already."""
        try:
            return self._lines.next()
        except jsonline.TooLongError:
            self.close()
            raise

    def request(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        again: bool = False,
    ) -> dict[str, Any]:
        """Send one request and return its result. `timeout`: seconds for the answer, in place of the client's.
        `again`: asking twice changes nothing, so it survives a restart of the backend in between.

        Raises:
            UsageError, NotDeliveredError, SdeiError: what the backend said (kinds usage, state, internal).
            LostGuestError: the backend is gone. `GuestTimeoutError`: it did not answer.
            ProtocolError: what it answered is not of the protocol's form.
        """
        limit = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        while True:
            try:
                return self._exchange(command, arguments or {}, max(deadline - time.monotonic(), 0.1))
            except _MovedError as moved:
                self.close()
                self.path, self._moved_to = moved.path, None
                if moved.ticket is not None:
                    command, arguments, again = "await", {"ticket": moved.ticket}, False
            except OSError:
                self.close()
                if self._far_away:
                    raise NotDeliveredError(f"the guest has moved to {self._far_away}; nothing was done here") from None
                if self._moved_to is not None:
                    # Told before it hung up: what it had not answered by then it has not done.
                    self.path, self._moved_to = self._moved_to, None
                    continue
                if not again:
                    raise LostGuestError(
                        f"the connection to the backend broke during {command}: whether it was carried out is not known"
                    ) from None
                if time.monotonic() >= deadline:
                    raise LostGuestError(f"the backend went away during {command}") from None

    def _exchange(self, command: str, arguments: dict[str, Any], timeout: float) -> dict[str, Any]:
        self._connect()
        answer = self._ask(command, arguments, timeout)
        what = f"{_ANSWER} to {command}"
        if answer.get("ok") is False:
            error = jsonline.error_of(answer, what)
            if error.get("kind") == "moved" and error.get("control"):
                raise _MovedError(Path(str(error.get("control"))))
            if error.get("kind") == "waits":
                raise _MovedError(Path(str(error.get("control"))), str(error.get("ticket")))
        return jsonline.CONTROL.result(answer, what)

    def _ask(self, command: str, arguments: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request by the connection that there is, and return its answer."""
        connection = self._socket
        assert connection is not None
        self._number += 1
        number = self._number
        request = {"id": number, "cmd": command, **arguments}
        line = jsonline.encode(request)
        if len(line) > MAX_LINE:
            raise UsageError(f"request {command} is longer than 1 MiB")
        CONTROL.sent(self._whom, request)
        deadline = time.monotonic() + timeout
        connection.settimeout(timeout)
        try:
            connection.sendall(line)
        except TimeoutError:
            self.close()  # part of it may be sent
            raise GuestTimeoutError(f"the backend did not take {command} within {timeout:g} s{self.reason()}") from None
        while True:
            answer = jsonline.decode(self._line(deadline, command), _ANSWER)
            CONTROL.received(self._whom, answer)
            self._hear(answer)
            # Events of a subscription, and the answer to a request that was given up, are passed over.
            if "event" not in answer and answer.get("id") == number:
                return answer

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """See `ControlClient.events`."""
        self.request("events")
        deadline = time.monotonic() + (timeout if timeout is not None else 10**9)
        while True:
            try:
                message = jsonline.decode(self._line(deadline, "events"), _ANSWER)
                CONTROL.received(self._whom, message)
            except GuestTimeoutError:
                return
            except OSError:
                self.close()
                if self._moved_to is None:
                    return
                self.path, self._moved_to = self._moved_to, None
                self.request("events")
                continue
            self._hear(message)
            if isinstance(message.get("event"), dict):
                yield message["event"]
