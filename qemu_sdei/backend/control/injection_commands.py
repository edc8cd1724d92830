"""The control socket's commands for injections: made, waited for, and why one is not delivered yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qemu_sdei.backend.control.commands import Field, Number, Switch, commands_of, handles, vcpu_if_given
from qemu_sdei.backend.control.connections import Client, Connections
from qemu_sdei.backend.loop.pending_injections import Answer
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import NotDeliveredError, SdeiError, UsageError
from qemu_sdei.sdei.dispatcher import Trigger
from qemu_sdei.sdei.events import EventType

_MAX_NUMBER: Final = 0xFFFF_FFFF
"""Of an event, and of a vCPU that may not be there."""


class InjectionCommands:
    """The commands `inject`, `await` and `why`.

    Attributes:
        commands: by name.
    """

    def __init__(self, server: Server, connections: Connections) -> None:
        self._server = server
        self._connections = connections
        self.commands = commands_of(self)

    @handles(
        "why",
        Number("event", 0, _MAX_NUMBER),
        Field("vcpu"),
        result="`reason`: what stands between a pending event and its handler, or null",
    )
    def _why(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        event, pe = self._target(message)
        firmware = self._server.firmware
        return {"reason": firmware.dispatcher.why_pending(event, pe) or firmware.misbehaviour.why_not(pe)}

    def _target(self, message: dict[str, Any]) -> tuple[int, int | None]:
        pe = vcpu_if_given(message)
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
        server.injections.check_room(client)
        # For a shared event the PE is a wish: another one may take it.
        where = None if description.type is EventType.SHARED else pe
        waiter = server.injections.add(event, where, client, self._replier(client, message))
        try:
            server.trigger(event, pe)
        except SdeiError:
            server.injections.forget(waiter)
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
        if not self._server.injections.claim(ticket, client, self._replier(client, message)):
            raise NotDeliveredError("nothing is known of that injection here: its outcome is lost")

    def _replier(self, client: Client, message: dict[str, Any]) -> Callable[[Answer], None]:
        request = message["id"]
        return lambda answer: self._connections.send(client, {"id": request, **answer})
