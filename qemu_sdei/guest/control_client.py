"""Client of a backend's control socket: one JSON object a line, request and answer.

Synchronous and small, so that the command line starts quickly. A backend that is just being restarted by its supervisor
is waited for.
"""

from __future__ import annotations

import base64
import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import jsonline, rundir, stopped
from qemu_sdei.errors import (
    GuestTimeoutError,
    LostGuestError,
    NotDeliveredError,
    ProtocolError,
    SdeiError,
    UsageError,
)
from qemu_sdei.message_log import CONTROL

if TYPE_CHECKING:
    from qemu_sdei.profiles.firmware_profile import FirmwareProfile

MAX_LINE: Final = 1 << 20
_MAX_ANSWER: Final = 2 * MAX_LINE
"""Bytes of an answer: `status` of 512 vCPUs with a dozen private events is longer than a request may be."""
PROTOCOL: Final = 1
CONNECT_TIMEOUT: Final = 30.0
"""Seconds that a backend has to come back; on a host that is busy, Python's start takes several."""
_STOPPED: Final = 5.0
"""The same where one of the guest's processes is stopped."""
_RETRY: Final = 0.05
_ANSWER: Final = "the backend's answer"


@dataclass(frozen=True)
class Injection:
    """What became of an injected event."""

    event: int
    vcpu: int
    outcome: str
    """`queued`: pending or being delivered; `merged`: it was pending already; `completed`: the handler completed it."""
    reason: str | None = None
    """Why it is not delivered yet."""
    entry_ns: int | None = None
    """Nanoseconds from the trigger to the handler's entry."""
    complete_ns: int | None = None
    """Nanoseconds from the trigger to the handler's completion."""


class _MovedError(Exception):
    """The guest has migrated, and what was asked was not done; or, with a ticket, was, and is answered there."""

    def __init__(self, path: Path, ticket: str | None = None) -> None:
        self.path = path
        self.ticket = ticket


class ControlClient:
    """A connection to one guest's backend; not for use by several threads at once.

    When the guest migrates, the connection follows it. It is bound to the guest, not to the path: when that guest has
    ended and another one has its name, each request is a `LostGuestError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        identity: str = "",
        timeout: float = 10.0,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
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

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
                if self.identity and rundir.identity(self.path.parent) not in ("", self.identity):
                    raise rundir.another(self.path.parent.name) from None
                if rundir.deserted(self.path.parent):
                    name = self.path.parent.name
                    raise LostGuestError(
                        f"guest {name!r} has lost its backend and has no owner to start another: it stands still at "
                        f"its next call until `qemu-sdei attach {name}`"
                    ) from None
                waited = time.monotonic() - began
                if waited >= _STOPPED and not looked:
                    looked = True
                    limit = min(limit, _STOPPED if self._reason() else limit)
                if waited >= limit:
                    raise LostGuestError(
                        f"the backend does not answer at {self.path} ({error.strerror or error}), "
                        f"tried for {limit:g} s{self._reason()}"
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
        if not rundir.is_identity(found):
            found = ""  # a backend of an older version
        if self.identity and found != self.identity:
            raise rundir.another(self.path.parent.name)
        self.identity = str(found)

    @property
    def _whom(self) -> str:
        """Who is asked, for the debug log."""
        return f"backend of {self.path.parent.name}"

    def _reason(self) -> str:
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
                raise GuestTimeoutError(f"the backend did not answer {what} in time{self._reason()}")
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
            raise GuestTimeoutError(
                f"the backend did not take {command} within {timeout:g} s{self._reason()}"
            ) from None
        while True:
            answer = jsonline.decode(self._line(deadline, command), _ANSWER)
            CONTROL.received(self._whom, answer)
            self._hear(answer)
            # Events of a subscription, and the answer to a request that was given up, are passed over.
            if "event" not in answer and answer.get("id") == number:
                return answer

    # What the backend offers

    def hello(self) -> dict[str, Any]:
        """Who serves: {pid, name, nr_cpus, epoch, protocol}. Raises `SdeiError` if it speaks another protocol."""
        result = self.request("hello", again=True)
        if result.get("protocol") != PROTOCOL:
            raise SdeiError(
                f"the guest's backend speaks protocol {result.get('protocol')}, this command {PROTOCOL}: "
                "use the version that the guest was started with"
            )
        return result

    def status(self) -> dict[str, Any]:
        """The state of the guest's vCPUs and events (see docs/internals.md)."""
        return self.request("status", again=True)

    def look(self, vcpus: list[int], *, ask: bool = True) -> dict[str, Any]:
        """Where these vCPUs are, as far as they have come; `ask`: have them come now. See the protocol's `look`."""
        return self.request("look", {"vcpus": vcpus, "ask": ask}, again=True)

    def trace(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest trace records, oldest first."""
        records = self.request("trace", {"limit": limit}, again=True).get("records")
        if not isinstance(records, list):
            raise ProtocolError("the backend's answer to trace is not of the protocol's form")
        return records

    def abort(
        self,
        vcpu: int | None = None,
        *,
        address: int | None = None,
        fetch: bool = False,
        kernel: bool = False,
        limit: int = 10,
    ) -> dict[str, Any]:
        """Have a vCPU (None: the first that can) take a synchronous external abort: {vcpu, pc, pstate, el} that it was
        taken at.

        Args:
            vcpu: None: the first that is where it can take one.
            address: virtual, for FAR; None: FAR holds none.
            fetch: of an instruction, not of data.
            kernel: it may hit the guest's kernel too, which dies of it.
            limit: seconds in which a moment is to come.

        Raises:
            NotDeliveredError: no moment came; the message says what was in the way.
        """
        arguments = {"vcpu": vcpu, "address": address, "fetch": fetch, "kernel": kernel, "limit": limit}
        return self.request("abort", arguments, timeout=limit + self.timeout)

    def interrupt(self, intid: int, *, look: bool = False) -> dict[str, Any]:
        """Make an SPI of the guest's pending; `look`: only find out whether it would reach the guest.

        Raises:
            UsageError: it is no SPI, or a device's. `NotDeliveredError`: the guest has not enabled it.
        """
        return self.request("interrupt", {"intid": intid, "look": look}, timeout=2 * self.timeout)

    def memory_error(self, address: int, *, source: str | None = None, vcpu: int | None = None) -> dict[str, Any]:
        """Tell of a page of guest RAM that is bad at the host: {page, source, vcpu, outcome} of how it is reported.

        Args:
            address: guest physical, in that page.
            source: name of the error source; None: the first that is ready.
            vcpu: which one is told; None: any.

        Raises:
            UsageError: that is no page of the guest's. `NotDeliveredError`: no source can report it now.
        """
        asked = {"address": address, "source": source, "vcpu": vcpu}
        return self.request("memory_error", asked, timeout=2 * self.timeout)

    def nmi(self, vcpu: int | None = None, *, by: str | None = None) -> dict[str, Any]:
        """Give the guest an NMI: see `qemu_sdei.guest.nmi`."""
        return self.request("nmi", {"vcpu": vcpu, "by": by}, timeout=2 * self.timeout)

    def inject(self, event: int, vcpu: int, *, wait: bool = False, timeout: float = 5.0) -> Injection:
        """Trigger `event` on `vcpu`; with `wait`, return when its handler completed, `timeout` seconds at most.

        Raises:
            UsageError: there is no such event or vCPU.
            NotDeliveredError: it cannot be delivered, or was not within `timeout`; the message says why.
        """
        target = {"event": event, "vcpu": vcpu}
        if wait:
            try:
                result = self.request("inject", {**target, "wait": True}, timeout=timeout)
            except GuestTimeoutError:
                reason = self.request("why", target, again=True).get("reason") or "its handler has not completed"
                raise NotDeliveredError(
                    f"event {event:#x} on vCPU {vcpu} was not completed within {timeout:g} s: {reason}{self._reason()}"
                ) from None
        else:
            result = self.request("inject", {**target, "wait": False})
        return Injection(
            event=event,
            vcpu=vcpu,
            outcome=str(result.get("outcome", "queued")),
            reason=result.get("reason"),
            entry_ns=result.get("entry_ns"),
            complete_ns=result.get("complete_ns"),
        )

    def ras_sources(self) -> list[dict[str, Any]]:
        """The error sources of the HEST and how they are (see the protocol's "Error sources"); of a guest that has none
        an empty list.
        """
        sources = self.request("ras_sources", again=True).get("sources")
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            raise ProtocolError("the backend's answer to ras_sources is not of the protocol's form")
        return sources

    def ras_report(
        self,
        source: str,
        block: bytes,
        *,
        vcpu: int | None = None,
        address: int | None = None,
        wait: bool = False,
        force: bool = False,
        raw: bool = False,
        timeout: float = 5.0,
    ) -> dict[str, Any]:
        """Report a hardware error to the guest.

        Args:
            source: the error source's name.
            block: a generic error status block, as `qemu_sdei.ras.block` makes it.
            vcpu: which one is told; None: any.
            address: virtual, for a synchronous external abort: what FAR holds.
            wait: return when the handler of the source's SDEI event has completed; other sources do not wait.
            force: also while the error before is not read, or SDEI is masked.
            raw: the block is malformed on purpose.
            timeout: seconds, with `wait`.

        Returns:
            `outcome` ("queued" or "completed"), `source`, `bytes`, `vcpu`; of one that completed also `entry_ns` and
            `complete_ns`, from the report on.

        Raises:
            UsageError: there is no such source, or it does not take this block. Nothing was written.
            NotDeliveredError: nobody would notice it, or the error before is not read, and nothing was written; or its
                handler did not complete within `timeout`, and it was.
        """
        asked: dict[str, Any] = {"source": source, "block": base64.b64encode(block).decode("ascii")}
        # An abort that finds no moment is told of before the wait for the answer ends.
        asked |= {"wait": wait, "force": force, "raw": raw, "limit": max(1, int(timeout) - 1)}
        asked |= {name: value for name, value in (("vcpu", vcpu), ("address", address)) if value is not None}
        try:
            result = self.request("ras_report", asked, timeout=max(timeout, self.timeout) if not wait else timeout)
        except GuestTimeoutError:
            if not wait:
                raise
            raise NotDeliveredError(
                f"source {source!r}: the error was written, and its handler has not completed within {timeout:g} s"
                f"{self._why_unread(source)}{self._reason()}"
            ) from None
        # A guest that has moved meanwhile answers as to an injection.
        return {"source": source, "bytes": len(block), **result}

    def _why_unread(self, source: str) -> str:
        """What stands between an error and its handler, as the end of a message."""
        for found in self.ras_sources():
            if found.get("name") == source and found.get("event") is not None:
                asked = {"event": found["event"], "vcpu": 0}
                reason = self.request("why", asked, again=True).get("reason") or found.get("reason")
                return f": {reason}" if reason else ""
        return ""

    def firmware(
        self, *, profile: FirmwareProfile | None = None, clear: bool = False, rules: Sequence[str] = ()
    ) -> dict[str, Any]:
        """What the firmware does wrong on purpose, after a change of it: the protocol's `firmware`.

        Raises:
            UsageError: something of it cannot be; nothing was changed.
        """
        fields: dict[str, Any] = {}
        if profile is not None:
            fields["profile"] = profile.document()
        if clear:
            fields["clear"] = True
        if rules:
            fields["set"] = list(rules)
        return _firmware(self.request("firmware", fields, again=not fields))

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Subscribe, then yield events (`{"type": "reset"|"power"|"deliver"|...}`).

        Ends when the guest does, or after `timeout` seconds. While it migrates, events may be missed.
        """
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

    def registers(self, vcpu: int, values: dict[int, list[int]] | None = None) -> dict[int, list[int]]:
        """KVM's pseudo firmware registers of a vCPU (`backend/control/kvm_regs.py`), by id, after writing `values`.

        Raises `UsageError`: there is no such register or vCPU, or what is written cannot be; nothing was changed.
        """
        wanted = {f"{number:#x}": words for number, words in (values or {}).items()}
        found = self.request("regs", {"vcpu": vcpu, "set": wanted}).get("registers")
        if not isinstance(found, dict):
            raise ProtocolError("the backend's answer to regs is not of the protocol's form")
        return {int(number, 0): words for number, words in found.items()}

    def shutdown(self) -> None:
        """Ask the backend to end, and its supervisor to end the guest with it."""
        with contextlib.suppress(LostGuestError):
            self.request("shutdown")


def _firmware(found: dict[str, Any]) -> dict[str, Any]:
    """An answer to `firmware`. Raises `ProtocolError`: it is none."""
    rules = found.get("rules")
    texts = [found.get("profile"), found.get("summary")]
    numbers: list[object] = []
    good = isinstance(rules, list) and all(isinstance(rule, dict) for rule in rules)
    for rule in rules if isinstance(rules, list) and good else ():
        texts += [rule.get("rule"), rule.get("why")]
        numbers.append(rule.get("acted"))
    for name in ("deaf", "stuck", "held"):
        vcpus = found.get(name)
        good = good and isinstance(vcpus, list)
        numbers += vcpus if isinstance(vcpus, list) else []
    if not good or not all(isinstance(text, str) for text in texts) or not all(type(n) is int for n in numbers):
        raise ProtocolError("the backend's answer to firmware is not of the protocol's form")
    return found
