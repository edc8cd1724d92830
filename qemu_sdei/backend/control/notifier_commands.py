"""The control socket's commands for what a guest notices other than by an event: `abort`, `interrupt`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qemu_sdei import jsonline
from qemu_sdei.backend.control.commands import (
    Field,
    Number,
    Switch,
    commands_of,
    handles,
    integer_if_given,
    vcpu_if_given,
)
from qemu_sdei.backend.control.connections import Client, Connections
from qemu_sdei.backend.loop.notifications import Outcome
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.sdei.pstate import MODE_AARCH32, MODE_MASK

_MAX_NUMBER: Final = 0xFFFF_FFFF
_WORD: Final = (1 << 64) - 1
_MAX_LIMIT: Final = 3600


class NotifierCommands:
    """The commands `abort` and `interrupt`.

    Attributes:
        commands: by name.
    """

    def __init__(self, server: Server, connections: Connections) -> None:
        self._server = server
        self._connections = connections
        self.commands = commands_of(self)

    @handles(
        "abort",
        Field("vcpu", " (the first that can take it)"),
        Field("address", ": virtual, for FAR (none: ESR.FnV is set)"),
        Switch("fetch", default=False, about=": of an instruction, not of data"),
        Switch("kernel", default=False, about=": it may hit the kernel too, and not only what runs at EL0"),
        Number("limit", 1, _MAX_LIMIT, default=10, about=": seconds in which a moment is to come"),
        result="when a vCPU has taken the synchronous external abort: `vcpu`, and `pc`, `pstate` and `el` that it was "
        "taken at. Where no moment came the error is of kind `state`",
        changes=True,
    )
    def _abort(self, client: Client, message: dict[str, Any]) -> None:
        address = integer_if_given(message, "address", _WORD)
        self._server.notifier.sea(
            vcpu_if_given(message),
            address=address,
            fetch=message["fetch"],
            kernel=message["kernel"],
            limit=message["limit"],
            then=self._replier(client, message, _taken),
        )

    @handles(
        "interrupt",
        Number("intid", 0, _MAX_NUMBER, about=": of an SPI of the guest's"),
        Switch("look", default=False, about=": only whether it would reach the guest"),
        result="`vcpu` that made it pending, or with `look` has looked. One that the guest has not enabled is an error "
        "of kind `state`",
        changes=True,
    )
    def _interrupt(self, client: Client, message: dict[str, Any]) -> None:
        notifier, then = self._server.notifier, self._replier(client, message, _made)
        if message["look"]:
            notifier.look(message["intid"], then)
        else:
            notifier.interrupt(message["intid"], then=then)

    def _replier(
        self, client: Client, message: dict[str, Any], result: Callable[[Outcome], dict[str, Any]]
    ) -> Callable[[Outcome], None]:
        request = message["id"]

        def reply(outcome: Outcome) -> None:
            answer = jsonline.success(result(outcome)) if outcome.made else jsonline.refusal("state", str(outcome.why))
            self._connections.send(client, {"id": request, **answer})

        return reply


def _made(outcome: Outcome) -> dict[str, Any]:
    return {"vcpu": outcome.vcpu}


def _taken(outcome: Outcome) -> dict[str, Any]:
    mode = outcome.pstate & MODE_MASK
    el = 0 if mode & MODE_AARCH32 else mode >> 2
    return {"vcpu": outcome.vcpu, "pc": outcome.pc, "pstate": outcome.pstate, "el": el}
