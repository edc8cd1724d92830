"""The control socket: what other processes of the same user may ask of the backend.

One JSON object a line, `{"id": n, "cmd": name, ...}`; the answer carries the same id and `"ok": true, "result":
{...}` or `"ok": false, "error": {"kind": "usage" | "state" | "internal", "message": ...}`. A client that says
anything else gets one such error and, if it cannot be made sense of at all, is hung up on. Clients are served from
the backend's loop: nothing here blocks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei import jsonline
from qemu_sdei.backend.control import kvm_regs
from qemu_sdei.backend.control.commands import Command, Field, Number, Switch, commands_of, handles, integer
from qemu_sdei.backend.control.connections import MAX_LINE, Connections
from qemu_sdei.backend.control.connections import Client as Client
from qemu_sdei.backend.control.handover_commands import Handover
from qemu_sdei.backend.control.snapshot_state import Keeping
from qemu_sdei.backend.loop.event_log import readable
from qemu_sdei.backend.loop.pending_injections import Answer
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import NotDeliveredError, ProtocolError, SdeiError, UsageError
from qemu_sdei.sdei.dispatcher import Trigger
from qemu_sdei.sdei.events import EventType

PROTOCOL: Final = 1
_MAX_WAITING: Final = 1024
"""Injections that one client can wait for at a time: each costs a look whenever a handler completes."""
_MAX_COUNT: Final = 1_000_000
_MAX_NUMBER: Final = 0xFFFF_FFFF
"""Of an event, and of a vCPU that may not be there."""
_MAX_RECORDS: Final = MAX_LINE - 4096
"""Bytes of trace records in one answer: it is to fit into a line."""


class Control(Connections):
    """Serves the control socket at `path` from the loop of `server`."""

    def __init__(self, server: Server, path: Path, about: dict[str, Any]) -> None:
        self._about = about
        self._waiting = server.waiting
        self._aside: dict[tuple[int, int], dict[int, list[int]]] = {}
        """Of KVM's registers: handlers that were written before their events, by boot and PE."""
        self._handover = Handover(server, path.parent, self._send, self._perform)
        self._commands: dict[str, Command] = {
            **commands_of(self),
            **self._handover.commands,
            **Keeping(server, self._handover).commands,
        }
        super().__init__(server, path)

    # ---- requests ----------------------------------------------------------------------------------------------------

    def _request(self, client: Client, line: bytes) -> None:
        try:
            message = jsonline.decode(line)
        except ProtocolError:
            self._fail(client, None, "usage", "a request is one JSON object on one line")
            return
        request = message.get("id")
        if not isinstance(request, int | str | None):
            request = None
        message["id"] = request
        command = self._commands.get(message["cmd"]) if isinstance(message.get("cmd"), str) else None
        if command is None:
            self._fail(client, request, "usage", f"no such command; there are {', '.join(sorted(self._commands))}")
            return
        if not command.request.changes or not self._handover.defers(client, message):
            self._perform(client, message)

    def _perform(self, client: Client, message: dict[str, Any]) -> None:
        request = message["id"]
        command = self._commands[message["cmd"]]
        try:
            result = command(client, message)
        except SdeiError as error:
            self._send(client, {"id": request, **jsonline.CONTROL.refusal(error)})
        else:
            if result is not None:
                self._send(client, {"id": request, **jsonline.success(result)})

    @handles(
        "hello",
        result="`protocol` (1), `pid` of the backend, `name`, `nr_cpus`, `epoch`, `kernels`, "
        "`identity`: [which guest it is](#which-guest)",
    )
    def _hello(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        firmware = self._server.firmware
        boot = {"epoch": firmware.epoch, "kernels": firmware.kernels}
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
        result="`records`: the newest records, oldest first; the backend keeps 4096, and an answer has as many of the "
        "newest as fit into 1 MiB",
    )
    def _trace(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        limit = message["limit"]
        notes = list(self._server.notes)[-limit:] if limit else []
        records, room = [], _MAX_RECORDS
        for record in map(readable, reversed(notes)):
            room -= len(json.dumps(record)) + 2
            if room < 0:
                break
            records.append(record)
        return {"records": records[::-1]}

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
        self._server.stop()
        return {}

    @handles(
        "moved",
        Field("name"),
        Field("control"),
        result="nothing; the client that has frozen the guest says so, and this backend does nothing any more. "
        "Requests that were not carried out get the error `moved`, an `inject` that waits gets `waits`, each other "
        'client a line `{"moved": {"name": ..., "control": ...}}`',
    )
    def _moved(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        name, control = message.get("name"), message.get("control")
        if not isinstance(name, str) or not isinstance(control, str):
            raise UsageError("moved wants the name and the control socket of where the guest is now")
        self._handover.moved(client, name, control)
        for waiter in self._waiting.leave():
            # Not `moved`, which says that nothing was done. On another host nobody can ask.
            here = f"event {waiter.event:#x}: the guest moved to {name} meanwhile, and its handler completes there"
            waits = jsonline.refusal("waits", here, control=control, ticket=waiter.ticket)
            if waiter.reply is not None:
                waiter.reply(waits if control else jsonline.refusal("state", here))
        for other in list(self._clients.values()):
            if other is not client:
                self._send(other, {"moved": {"name": name, "control": control}})
        return {}

    @handles(
        "regs",
        Field("vcpu"),
        Field("set", ": id → list of words, all written at once (none)"),
        result="`registers`: id → list of 64-bit words, of all [KVM's pseudo registers](kvm-registers.md)",
        changes=True,
    )
    def _regs(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        pe = integer(message, "vcpu", 0, self._server.window.nr_cpus - 1)
        values = message.get("set", {})
        if not isinstance(values, dict) or not all(isinstance(words, list) for words in values.values()):
            raise UsageError("set is an object of lists of words")
        try:
            wanted = {int(number, 0): words for number, words in values.items()}
        except ValueError:
            raise UsageError("a register's id is a number") from None
        firmware = self._server.firmware
        if not firmware.serves_sdei:
            raise UsageError("this guest has no SDEI (--no-sdei), and none of its registers")
        aside = dict(self._aside.get((firmware.epoch, pe), {}))
        if wanted:
            try:
                self._server.replace_sdei(kvm_regs.write(firmware.dispatcher.snapshot(), pe, wanted, aside))
            except ProtocolError as error:
                raise UsageError(f"this cannot be: {error}") from None
            self._aside = {key: value for key, value in self._aside.items() if key[0] == firmware.epoch}
            self._aside[firmware.epoch, pe] = aside
        found = kvm_regs.read(firmware.dispatcher.snapshot(), pe, aside)
        return {"registers": {f"{number:#x}": words for number, words in found.items()}}

    @handles(
        "why",
        Number("event", 0, _MAX_NUMBER),
        Field("vcpu"),
        result="`reason`: what stands between a pending event and its handler, or null",
    )
    def _why(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        event, pe = self._target(message)
        return {"reason": self._server.firmware.dispatcher.why_pending(event, pe)}

    def _target(self, message: dict[str, Any]) -> tuple[int, int | None]:
        pe = None if message.get("vcpu") is None else integer(message, "vcpu", 0, _MAX_NUMBER)
        return message["event"], pe

    @handles(
        "inject",
        Number("event", 0, _MAX_NUMBER),
        Field("vcpu", " (may be left out for a shared event)"),
        Switch("wait", default=False),
        result="`outcome`: `queued`, `merged` (it was pending already) or, with `wait`, `completed`; `reason`: why it "
        "is not delivered yet, or null. `completed` also has `vcpu`, `entry_ns` and `complete_ns`: time from the "
        "trigger to the handler's entry and completion",
        changes=True,
    )
    def _inject(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        event, pe = self._target(message)
        server = self._server
        description = server.firmware.dispatcher.describe(event)
        if not message["wait"]:
            outcome = server.trigger(event, pe)
            reason = server.firmware.dispatcher.why_pending(event, pe)
            return {"outcome": "merged" if outcome is Trigger.MERGED else "queued", "reason": reason}
        if self._waiting.held_by(client) >= _MAX_WAITING:
            raise UsageError(f"this client waits for {_MAX_WAITING} injections already")
        # For a shared event the PE is a wish: another one may take it.
        where = None if description.type is EventType.SHARED else pe
        waiter = self._waiting.add(event, where, client, self._replier(client, message))
        try:
            server.trigger(event, pe)
        except SdeiError:
            self._waiting.forget(waiter)
            raise
        return None

    @handles(
        "await",
        Field("ticket"),
        result="as of the `inject` that the ticket is of: see `waits` above. Once",
    )
    def _await(self, client: Client, message: dict[str, Any]) -> None:
        """Go on waiting for an injection that was made where the guest came from."""
        ticket = message.get("ticket")
        if not isinstance(ticket, str):
            raise UsageError("await wants a ticket")
        if not self._waiting.claim(ticket, client, self._replier(client, message)):
            raise NotDeliveredError("nothing is known of that injection here: its outcome is lost")

    def _replier(self, client: Client, message: dict[str, Any]) -> Callable[[Answer], None]:
        request = message["id"]
        return lambda answer: self._send(client, {"id": request, **answer})

    # ---- what happens ------------------------------------------------------------------------------------------------

    def _dropped(self, client: Client) -> None:
        self._waiting.drop(client)
        self._handover.dropped(client)
        self._listen()

    def _listen(self) -> None:
        """Be told of what happens only while somebody wants to know: it costs on the hot path."""
        if any(client.events for client in self._clients.values()):
            self._server.listen(self._happened)
        else:
            self._server.unlisten(self._happened)

    def _happened(self, record: dict[str, Any]) -> None:
        for client in list(self._clients.values()):
            if client.events:
                self._send(client, {"event": record})
