"""The control socket's commands by which a guest is handed from one backend to another.

    source                                    destination (`--incoming`: held from the start)
    hold (if asked for)
    signs    -> the guest gives heartbeats: signs that it runs
    freeze   -> state.json, paused
                                              check   <- state.json, all of it
                                              restore <- state.json, serves
    moved    -> tells clients where to
                                              first-sign -> when it was seen to run there
    (or thaw -> resumes)

A freeze belongs to the connection that asked for it: when that breaks, the guest resumes. Triggers that arrive while
the guest is paused are neither done nor refused before it is known where it resumes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei import bounded, jsonline, rundir
from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.control.commands import Field, Number, commands_of, handles
from qemu_sdei.backend.control.connections import Client, Connections
from qemu_sdei.backend.loop.hold_points import HoldPoint
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import NotDeliveredError, ProtocolError, SdeiError, UsageError

_MAX_DEFERRED: Final = 1024
_MAX_TOGETHER: Final = 4 * _MAX_DEFERRED
_TOO_MANY: Final = f"{_MAX_DEFERRED} requests of this client wait for the guest already, which is being handed over"
_TOO_MANY_TOGETHER: Final = f"{_MAX_TOGETHER} requests wait for the guest already, which is being handed over"
_MAX_EVERY: Final = 1000
"""Milliseconds."""


class HandoverCommands:
    """The commands, and the state of the hand-over; one for each control socket.

    Attributes:
        commands: by name.
    """

    def __init__(
        self,
        server: Server,
        directory: Path,
        connections: Connections,
        again: Callable[[Client, dict[str, Any]], None],
    ) -> None:
        """`directory`: where the state document lies. Do a request `again` that was deferred."""
        self._server = server
        self._path = directory / rundir.STATE
        self._connections = connections
        self._again = again
        self._freezer: Client | None = None
        self._waits_for_hold: tuple[Client, Any] | None = None
        """Who waits for a hold point, and its request's id."""
        self._deferred: list[tuple[Client, dict[str, Any]]] = []
        self._elsewhere: dict[str, Any] | None = None
        """Name and control socket of where the guest is; None: here."""
        self._incoming = server.paused
        self._restored = False
        self._first_heartbeat_ns: int | None = None
        """When the guest was first seen to run here, by the log's clock."""
        self._waits_for_heartbeat: tuple[Client, Any] | None = None
        """Who waits for a heartbeat, and its request's id."""
        self.commands = commands_of(self)

    def defers(self, client: Client, message: dict[str, Any]) -> bool:
        """Whether this request, which changes the guest, is not for us to carry out now; it is answered later."""
        if not self._server.paused:
            return False
        if self._elsewhere is not None:
            self._send_moved(client, message)
        elif sum(other is client for other, _ in self._deferred) >= _MAX_DEFERRED:
            self._connections.send(client, {"id": message["id"], **jsonline.refusal("busy", _TOO_MANY)})
        elif len(self._deferred) >= _MAX_TOGETHER:
            self._connections.send(client, {"id": message["id"], **jsonline.refusal("busy", _TOO_MANY_TOGETHER)})
        else:
            self._deferred.append((client, message))
        return True

    def frozen_by(self, client: Client) -> bool:
        """Whether the guest is paused because this client has frozen it."""
        return self._freezer is client and self._server.paused and self._elsewhere is None

    def dropped(self, client: Client) -> None:
        """A connection has ended."""
        self._deferred = [entry for entry in self._deferred if entry[0] is not client]
        if self._waits_for_heartbeat is not None and self._waits_for_heartbeat[0] is client:
            self._waits_for_heartbeat = None
        if self._freezer is client:
            self._release()

    # ---- source -----------------------------------------------------------------------------------------------------

    @handles(
        "hold",
        Field("state", " (a [hold point](migration.md#hold-points))"),
        Field("event"),
        Field("vcpu"),
        result="nothing; when it is reached, the backend answers no frame any more",
    )
    def _hold(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """Pause at a hold point, from now on: `held` is answered when it is reached."""
        state, event, vcpu = message.get("state"), message.get("event", 0), message.get("vcpu", 0)
        if not isinstance(state, str) or type(event) is not int or type(vcpu) is not int:
            raise UsageError("hold wants a state, and the numbers of an event and a vCPU")
        self._check_free(client)
        server = self._server
        point = HoldPoint(state, event, vcpu)
        point.check(server.firmware)
        self._freezer = client
        if point.reached(server.firmware):
            server.hooks.heartbeat_ns = server.log.clock()
            server.pause()
        else:
            server.hooks.hold_point = point
            server.log.listen(self._happened)
        return {}

    @handles(
        "held",
        result="nothing, once that is so",
    )
    def _held(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        if self._freezer is not client:
            raise NotDeliveredError("this client has asked for no hold point")
        if self._server.paused:
            return {}
        self._waits_for_hold = (client, message["id"])
        return None

    def _happened(self, record: dict[str, Any]) -> None:
        if record["type"] == "held":
            self._server.log.unlisten(self._happened)
            if self._waits_for_hold is not None:
                client, request = self._waits_for_hold
                self._waits_for_hold = None
                self._connections.send(client, {"id": request, **jsonline.success({})})

    @handles(
        "signs",
        Number("every_ms", 1, _MAX_EVERY, about=f" (1 to {_MAX_EVERY})"),
        result="`sign_ns`, when the guest has trapped to EL3; it is interrupted for that as often, until it is paused",
    )
    def _ask_heartbeats(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        """Have the guest give a heartbeat `every_ms` or more often, until it is paused or this client hangs up.
        Answered when it gave the first.
        """
        self._check_free(client)
        self._freezer = client
        hooks = self._server.hooks
        hooks.heartbeat_ms = message["every_ms"]
        hooks.on_heartbeat = self._heartbeat
        self._waits_for_heartbeat = (client, message["id"])
        hooks.ask_for_heartbeat()
        return None

    def _heartbeat(self) -> None:
        """The guest has given a heartbeat."""
        last_ns = self._server.hooks.heartbeat_ns
        if self._first_heartbeat_ns is None:
            self._first_heartbeat_ns = last_ns
        if self._waits_for_heartbeat is not None:
            client, request = self._waits_for_heartbeat
            self._waits_for_heartbeat = None
            self._connections.send(client, {"id": request, **jsonline.success({"sign_ns": last_ns})})

    @handles(
        "freeze",
        Field("drain", " (true): answer what is posted"),
        result="`document`: name of the [state document](state-document.md) in the run directory, `bytes`; `sign_ns`: "
        "when the guest trapped to EL3 last, null if it was not watched. For stopped vCPUs. Until `thaw`, `inject`, "
        "`regs` and `shutdown` wait",
    )
    def _freeze(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """Pause, and write the state document into the run directory. The vCPUs must have been stopped."""
        self._check_free(client)
        server = self._server
        server.pause()
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
        server.log.note("migration", None, phase="frozen", text=f"state document of {len(data)} bytes")
        sign_ns = server.hooks.heartbeat_ns
        server.hooks.forget()
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
        """The guest resumes here."""
        if self._freezer is not client or self._elsewhere is not None:
            raise NotDeliveredError("the guest was not frozen by this client")
        self._server.log.note("migration", None, phase="thawed", text="the guest goes on here")
        self._release()
        return {}

    def _release(self) -> None:
        if self._elsewhere is not None:
            return  # it runs elsewhere: nobody here may touch it any more
        self._freezer = self._waits_for_hold = self._waits_for_heartbeat = None
        self._server.resume()
        self._server.hooks.forget()
        self._server.log.unlisten(self._happened)
        deferred, self._deferred = self._deferred, []
        for client, message in deferred:
            self._again(client, message)

    @handles(
        "moved",
        Field("name"),
        Field("control"),
        result="nothing; the client that has frozen the guest says so, and this backend does nothing any more. "
        "Requests that were not carried out get the error `moved`, an `inject` that waits gets `waits`, each other "
        'client a line `{"moved": {"name": ..., "control": ...}}`',
    )
    def _moved(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """The guest resumes at another backend, whose control socket is `control`. Final."""
        name, control = message.get("name"), message.get("control")
        if not isinstance(name, str) or not isinstance(control, str):
            raise UsageError("moved wants the name and the control socket of where the guest is now")
        if self._freezer is not client:
            raise NotDeliveredError("the guest was not frozen by this client")
        self._elsewhere = {"name": name, "control": control}
        self._server.log.note("migration", None, phase="moved", text=f"the guest is {name!r} now")
        self._server.log.ring.commit()
        deferred, self._deferred = self._deferred, []
        for other, request in deferred:
            self._send_moved(other, request)
        for waiter in self._server.injections.leave():
            # Not `moved`, which says that nothing was done. On another host nobody can ask.
            here = f"event {waiter.event:#x}: the guest moved to {name} meanwhile, and its handler completes there"
            waits = jsonline.refusal("waits", here, control=control, ticket=waiter.ticket)
            if waiter.reply is not None:
                waiter.reply(waits if control else jsonline.refusal("state", here))
        self._server.notifier.leave()
        self._server.host_errors.leave()
        for other in self._connections.all():
            if other is not client:
                self._connections.send(other, {"moved": {"name": name, "control": control}})
        return {}

    def _send_moved(self, client: Client, message: dict[str, Any]) -> None:
        assert self._elsewhere is not None
        here = f"the guest has moved to {self._elsewhere['name']}; nothing was done here"
        moved = jsonline.refusal("moved", here, control=self._elsewhere["control"])
        self._connections.send(client, {"id": message["id"], **moved})

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
        self._server.log.note("migration", None, phase="arrived", text="its state document was taken")
        self._release()
        hooks = self._server.hooks
        hooks.arriving = message.get("arriving", False) is True
        hooks.on_heartbeat = self._heartbeat
        return {}

    @handles(
        "first-sign",
        result="`sign_ns`: when it first came by here, as soon as it did. CLOCK_MONOTONIC, as all times here",
    )
    def _first_heartbeat(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        """When the guest was first seen to run here (`sign_ns`); answered as soon as it was."""
        if not self._restored:
            raise NotDeliveredError("no guest has arrived here")
        if self._first_heartbeat_ns is None:
            self._waits_for_heartbeat = (client, message["id"])
            return None
        return {"sign_ns": self._first_heartbeat_ns}

    @handles(
        "arrived",
        result="nothing; all of the guest's RAM is there",
    )
    def _arrived(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """All of the guest's RAM is there."""
        hooks = self._server.hooks
        if hooks.arriving:
            hooks.arriving = False
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
