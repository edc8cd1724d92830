"""The control socket: what other processes of the same user may ask of the backend.

One JSON object a line, `{"id": n, "cmd": name, ...}`; the answer carries the same id and `"ok": true, "result":
{...}` or `"ok": false, "error": {"kind": "usage" | "state" | "internal", "message": ...}`. A client that says
anything else gets one such error and, if it cannot be made sense of at all, is hung up on. Clients are served from
the backend's loop: nothing here blocks.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from qemu_sdei import jsonline
from qemu_sdei.backend.control.commands import Command, Number, commands_of, handles
from qemu_sdei.backend.control.connections import MAX_LINE, Client, Connections
from qemu_sdei.backend.control.handover_commands import HandoverCommands
from qemu_sdei.backend.control.host_error_commands import HostErrorCommands
from qemu_sdei.backend.control.injection_commands import InjectionCommands
from qemu_sdei.backend.control.look_commands import LookCommands
from qemu_sdei.backend.control.nmi_commands import NmiCommands
from qemu_sdei.backend.control.notifier_commands import NotifierCommands
from qemu_sdei.backend.control.profile_commands import ProfileCommands
from qemu_sdei.backend.control.ras_commands import RasCommands
from qemu_sdei.backend.control.register_commands import RegisterCommands
from qemu_sdei.backend.control.snapshot_commands import SnapshotCommands
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import ProtocolError, SdeiError
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.reading import records_of

PROTOCOL: Final = 1
_MAX_COUNT: Final = 1_000_000
_RECORDS_BEFORE: Final = 256
_MAX_RECORDS: Final = MAX_LINE - 4096
"""Bytes of trace records in one answer: it is to fit into a line."""


class Control:
    """Serves the control socket at `path` from the loop of `server`."""

    def __init__(self, server: Server, path: Path, about: dict[str, Any]) -> None:
        """`about`: what `hello` says besides, JSON-able."""
        self._server = server
        self._about = about
        self._followers: list[Client] = []
        """Who wants to see each call in the trace ring."""
        self._connections = Connections(server.descriptors, path, self._request, self._dropped)
        self._handover = HandoverCommands(server, path.parent, self._connections, self._perform)
        self._commands: dict[str, Command] = {
            **commands_of(self),
            **InjectionCommands(server, self._connections).commands,
            **LookCommands(server).commands,
            **RasCommands(server, self._connections).commands,
            **HostErrorCommands(server, self._connections).commands,
            **NotifierCommands(server, self._connections).commands,
            **NmiCommands(server, self._connections).commands,
            **ProfileCommands(server).commands,
            **RegisterCommands(server).commands,
            **self._handover.commands,
            **SnapshotCommands(server, self._handover.frozen_by).commands,
        }

    def close(self) -> None:
        """Hang up on everybody and remove the socket; does nothing the second time."""
        self._connections.close()

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _request(self, client: Client, line: bytes) -> None:
        try:
            message = jsonline.decode(line)
        except ProtocolError:
            self._connections.fail(client, None, "usage", "a request is one JSON object on one line")
            return
        request = message.get("id")
        if not isinstance(request, int | str | None):
            request = None
        message["id"] = request
        command = self._commands.get(message["cmd"]) if isinstance(message.get("cmd"), str) else None
        if command is None:
            known = ", ".join(sorted(self._commands))
            self._connections.fail(client, request, "usage", f"no such command; there are {known}")
            return
        if not command.request.changes or not self._handover.defers(client, message):
            self._perform(client, message)

    def _perform(self, client: Client, message: dict[str, Any]) -> None:
        request = message["id"]
        command = self._commands[message["cmd"]]
        try:
            result = command(client, message)
        except SdeiError as error:
            self._connections.send(client, {"id": request, **jsonline.CONTROL.refusal(error)})
        else:
            if result is not None:
                self._connections.send(client, {"id": request, **jsonline.success(result)})

    @handles(
        "hello",
        result="`protocol` (1), `pid` of the backend, `name`, `nr_cpus`, `epoch`, `kernels`, "
        "`reports` (hardware errors that this backend has reported), "
        "`identity`: [which guest it is](#which-guest)",
    )
    def _hello(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        firmware = self._server.firmware
        boot = {"epoch": firmware.machine.epoch, "kernels": firmware.machine.kernels}
        boot["reports"] = self._server.reports
        return {"protocol": PROTOCOL, "pid": os.getpid(), **boot, **self._about}

    @handles(
        "status",
        result="`name`, `epoch`, `kernels`, `pes`, `events`, `counts`: see below",
    )
    def _status(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        return self._server.status() | {"name": self._about.get("name")}

    @handles(
        "trace",
        Number("limit", 0, _MAX_COUNT, default=100),
        result="`records`: the newest records of the trace ring, oldest first; as many of them as fit into 1 MiB",
    )
    def _trace(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        limit = message["limit"]
        # Those before tell the times of records that have no stamp.
        slots = self._server.log.ring.newest_slots(limit + _RECORDS_BEFORE) if limit else []
        records, room = [], _MAX_RECORDS
        decoded = [record for record in records_of(self._meta(), slots) if record["type"] != "dropped"]
        for record in reversed(decoded[-limit:]):
            room -= len(json.dumps(record)) + 2
            if room < 0:
                break
            records.append(record)
        return {"records": records[::-1]}

    def _meta(self) -> TraceMeta:
        return TraceMeta(monitor=self._server.firmware.machine.monitor)

    @handles(
        "follow",
        result="nothing; while this connection is open each call is recorded in the trace ring, also those that always "
        "answer the same and are only counted otherwise",
    )
    def _follow(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        if client not in self._followers:
            self._followers.append(client)
            self._server.record_each(True)
        return {}

    @handles(
        "events",
        result='nothing; from now on each record comes as a line `{"event": RECORD}` of its own',
    )
    def _events(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        client.events = True
        self._listen()
        return {}

    @handles(
        "shutdown",
        result="nothing; the backend ends, and its supervisor ends the guest",
        changes=True,
    )
    def _shutdown(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        self._server.descriptors.stop()
        return {}

    # ---- what happens ------------------------------------------------------------------------------------------------

    def _dropped(self, client: Client) -> None:
        if client in self._followers:
            self._followers.remove(client)
            self._server.record_each(False)
        self._server.injections.drop(client)
        self._handover.dropped(client)
        self._listen()

    def _listen(self) -> None:
        """Be told of what happens only while somebody wants to know: it costs on the hot path."""
        if any(client.events for client in self._connections.all()):
            self._server.log.listen(self._happened)
        else:
            self._server.log.unlisten(self._happened)

    def _happened(self, record: dict[str, Any]) -> None:
        for client in self._connections.all():
            if client.events:
                self._connections.send(client, {"event": record})
