"""The control socket's commands by which a guest is handed from one backend to another.

    source                                    destination (`--incoming`: held from the start)
    hold (if asked for)
    signs    -> the guest gives signs that it runs
    freeze   -> state.json, stands still
                                              check   <- state.json, all of it
                                              restore <- state.json, serves
    moved    -> tells clients where to
                                              first-sign -> when it was seen to run there
    (or thaw -> goes on)

A freeze belongs to the connection that asked for it: when that breaks, the guest goes on. Triggers that arrive while
the guest stands still are neither done nor refused before it is known where it goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import bounded, jsonline, rundir
from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.control.commands import Field, Number, commands_of, handles
from qemu_sdei.backend.loop.hold_points import HoldPoint
from qemu_sdei.errors import NotDeliveredError, ProtocolError, SdeiError, UsageError
from qemu_sdei.monitor import layout

if TYPE_CHECKING:
    from qemu_sdei.backend.control.control_socket import Client
    from qemu_sdei.backend.loop.server import Server

_LIVE_VERSION: Final = 2
"""Of the frame window: since then the monitor's memory is in it."""
_MAX_DEFERRED: Final = 1024
_MAX_TOGETHER: Final = 4 * _MAX_DEFERRED
_TOO_MANY: Final = f"{_MAX_DEFERRED} requests of this client wait for the guest already, which is being handed over"
_TOO_MANY_TOGETHER: Final = f"{_MAX_TOGETHER} requests wait for the guest already, which is being handed over"
_MAX_EVERY: Final = 1000
"""Milliseconds."""


class Handover:
    """State of the hand-over, one for each control socket."""

    def __init__(
        self,
        server: Server,
        directory: Path,
        send: Callable[[Client, dict[str, Any]], None],
        again: Callable[[Client, dict[str, Any]], None],
    ) -> None:
        """`send` a message to a client; do a request `again` that was deferred."""
        self._server = server
        self._path = directory / rundir.STATE
        self._send = send
        self._again = again
        self._freezer: Client | None = None
        self._waiting: tuple[Client, Any] | None = None
        """Who waits for a hold point, and its request's id."""
        self._deferred: list[tuple[Client, dict[str, Any]]] = []
        self._moved: dict[str, Any] | None = None
        self._incoming = server.held
        self._restored = False
        self._first_ns: int | None = None
        """When the guest was first seen to run here, by the server's clock."""
        self._signs: tuple[Client, Any] | None = None
        """Who waits for a sign of it, and its request's id."""
        self.commands = commands_of(self)

    def defers(self, client: Client, message: dict[str, Any]) -> bool:
        """Whether this request, which changes the guest, is not for us to carry out now; it is answered later."""
        if not self._server.held:
            return False
        if self._moved is not None:
            self._send_moved(client, message)
        elif sum(other is client for other, _ in self._deferred) >= _MAX_DEFERRED:
            self._send(client, {"id": message["id"], **jsonline.refusal("busy", _TOO_MANY)})
        elif len(self._deferred) >= _MAX_TOGETHER:
            self._send(client, {"id": message["id"], **jsonline.refusal("busy", _TOO_MANY_TOGETHER)})
        else:
            self._deferred.append((client, message))
        return True

    def frozen_by(self, client: Client) -> bool:
        """Whether the guest stands still because this client has frozen it."""
        return self._freezer is client and self._server.held and self._moved is None

    def dropped(self, client: Client) -> None:
        """A connection has ended."""
        self._deferred = [entry for entry in self._deferred if entry[0] is not client]
        if self._signs is not None and self._signs[0] is client:
            self._signs = None
        if self._freezer is client:
            self._release()

    # ---- source -----------------------------------------------------------------------------------------------------

    @handles(
        "hold",
        Field("state", " (a [hold point](../howto/migrate.md#hold-points))"),
        Field("event"),
        Field("vcpu"),
        result="nothing; when it is reached, the backend answers no frame any more",
    )
    def _hold(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """Stand still at a hold point, from now on: `held` is answered when it is reached."""
        state, event, vcpu = message.get("state"), message.get("event", 0), message.get("vcpu", 0)
        if not isinstance(state, str) or type(event) is not int or type(vcpu) is not int:
            raise UsageError("hold wants a state, and the numbers of an event and a vCPU")
        self._check_free(client)
        server = self._server
        point = HoldPoint(state, event, vcpu)
        point.check(server.firmware)
        self._freezer = client
        if point.reached(server.firmware):
            server.watched.last_ns = server.clock()
            server.hold()
        else:
            server.watched.hold_point = point
            server.listen(self._happened)
        return {}

    @handles(
        "held",
        result="nothing, once that is so",
    )
    def _held(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        if self._freezer is not client:
            raise NotDeliveredError("this client has asked for no hold point")
        if self._server.held:
            return {}
        self._waiting = (client, message["id"])
        return None

    def _happened(self, record: dict[str, Any]) -> None:
        if record["type"] == "held":
            self._server.unlisten(self._happened)
            if self._waiting is not None:
                client, request = self._waiting
                self._waiting = None
                self._send(client, {"id": request, **jsonline.success({})})

    @handles(
        "signs",
        Number("every_ms", 1, _MAX_EVERY, about=f" (1 to {_MAX_EVERY})"),
        result="`sign_ns`, when the guest has come by; it is interrupted for that as often, until it stands still",
    )
    def _ask_signs(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        """Have the guest give a sign that it runs, `every_ms` or more often, until it stands still or this client hangs
        up. Answered when it gave the first.
        """
        self._check_free(client)
        self._freezer = client
        watched = self._server.watched
        watched.every_ms = message["every_ms"]
        watched.on_sign = self._seen
        self._signs = (client, message["id"])
        watched.ask_for_sign()
        return None

    def _seen(self) -> None:
        """The guest has given a sign."""
        last_ns = self._server.watched.last_ns
        if self._first_ns is None:
            self._first_ns = last_ns
        if self._signs is not None:
            client, request = self._signs
            self._signs = None
            self._send(client, {"id": request, **jsonline.success({"sign_ns": last_ns})})

    @handles(
        "freeze",
        Field("drain", " (true): answer what is posted"),
        Field("live", " (false): QEMU migrates it while it runs"),
        result="`document`: name of the [state document](state-document.md) in the run directory, `bytes`; `sign_ns`: "
        "when the guest came by last, null if it was not watched. For stopped vCPUs. Until `thaw`, `inject`, `regs` "
        "and `shutdown` wait",
    )
    def _freeze(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """Stand still, and write the state document into the run directory. The vCPUs must have been stopped."""
        self._check_free(client)
        server = self._server
        if message.get("live", False) is True and server.machine.get("window_version", layout.VERSION) < _LIVE_VERSION:
            raise NotDeliveredError(
                "the guest was saved by an older version, and brought a monitor whose memory QEMU may lose in a live "
                "migration: migrate it by route shared or copy"
            )
        server.hold()
        self._freezer = client
        if message.get("drain", True) is True:
            server.drain()
        try:
            state = state_document.take(server)
        except SdeiError:
            self._release()
            raise
        data = json.dumps(state).encode()
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
        except OSError as error:
            self._release()
            raise SdeiError(f"the state document {self._path} cannot be written: {error.strerror}") from None
        sign_ns = server.watched.last_ns
        server.watched.forget()
        return {"document": self._path.name, "bytes": len(data), "sign_ns": sign_ns}

    def _check_free(self, client: Client) -> None:
        if self._incoming and not self._restored:
            raise NotDeliveredError("the guest has not arrived here yet")
        if self._freezer is not None and self._freezer is not client:
            raise NotDeliveredError("the guest is being migrated or saved by somebody else")

    @handles(
        "thaw",
        result="nothing; the guest goes on here",
    )
    def _thaw(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """The guest goes on here."""
        if self._freezer is not client or self._moved is not None:
            raise NotDeliveredError("the guest was not frozen by this client")
        self._release()
        return {}

    def _release(self) -> None:
        if self._moved is not None:
            return  # it runs elsewhere: nobody here may touch it any more
        self._freezer = self._waiting = self._signs = None
        self._server.held = False
        self._server.watched.forget()
        self._server.unlisten(self._happened)
        deferred, self._deferred = self._deferred, []
        for client, message in deferred:
            self._again(client, message)

    def moved(self, client: Client, name: str, control: str) -> None:
        """The guest goes on at another backend, whose control socket is `control`. Final."""
        if self._freezer is not client:
            raise NotDeliveredError("the guest was not frozen by this client")
        self._moved = {"name": name, "control": control}
        deferred, self._deferred = self._deferred, []
        for other, message in deferred:
            self._send_moved(other, message)

    def _send_moved(self, client: Client, message: dict[str, Any]) -> None:
        assert self._moved is not None
        here = f"the guest has moved to {self._moved['name']}; nothing was done here"
        moved = jsonline.refusal("moved", here, control=self._moved["control"])
        self._send(client, {"id": message["id"], **moved})

    # ---- destination ------------------------------------------------------------------------------------------------

    @handles(
        "check",
        result="nothing; whether `restore` would take the state document. Guest RAM is not touched",
    )
    def _check(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """Whether `restore` would take the state document in the run directory. Guest RAM is not touched."""
        self._check_incoming()
        state_document.prepare(self._server, self._read())
        return {}

    @handles(
        "restore",
        Field("arriving", " (false): RAM is not all there yet, and nothing may be loaded before `arrived`"),
        result="nothing; for a backend that was started with `--incoming`: takes the guest of the state document in "
        "its run directory",
    )
    def _restore(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """Take over the guest of the state document in the run directory. Its vCPUs must not run yet.

        `arriving`: its RAM is not all there (postcopy), so that the machine cannot be booted before `arrived`.
        """
        self._check_incoming()
        state_document.restore(self._server, self._read())
        self._restored = True
        self._release()
        watched = self._server.watched
        watched.arriving = message.get("arriving", False) is True
        watched.on_sign = self._seen
        return {}

    @handles(
        "first-sign",
        result="`sign_ns`: when it first came by here, as soon as it did. CLOCK_MONOTONIC, as all times here",
    )
    def _first_sign(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        """When the guest was first seen to run here (`sign_ns`); answered as soon as it was."""
        if not self._restored:
            raise NotDeliveredError("no guest has arrived here")
        if self._first_ns is None:
            self._signs = (client, message["id"])
            return None
        return {"sign_ns": self._first_ns}

    @handles(
        "arrived",
        result="nothing; all of the guest's RAM is there",
    )
    def _arrived(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """All of the guest's RAM is there."""
        watched = self._server.watched
        if watched.arriving:
            watched.arriving = False
            if self._freezer is None:
                self._release()
        return {}

    def _check_incoming(self) -> None:
        if not self._incoming or self._restored:
            raise NotDeliveredError("this backend serves a guest already")

    def _read(self) -> object:
        try:
            with self._path.open("rb") as file:
                data = file.read(state_document.MAX_DOCUMENT + 1)
        except OSError as error:
            raise SdeiError(f"the state document {self._path} cannot be read: {error.strerror}") from None
        if len(data) > state_document.MAX_DOCUMENT:
            raise ProtocolError(f"state document: more than {state_document.MAX_DOCUMENT >> 20} MiB")
        try:
            return bounded.loads(data)
        except ValueError as error:
            raise ProtocolError(f"state document: no JSON, or truncated: {error}") from None
