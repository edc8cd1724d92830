"""The control socket's commands for hardware errors: which sources there are, and an error to be reported by one."""

from __future__ import annotations

import base64
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
from qemu_sdei.backend.loop.notifications import Outcome, Then
from qemu_sdei.backend.loop.pending_injections import Answer
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.boot.area import ErrorSource
from qemu_sdei.errors import CperError, SdeiError, UsageError
from qemu_sdei.ras.source import Notify
from qemu_sdei.sdei.events import EventType

_MAX_LIMIT: Final = 3600
_MAX_ADDRESS: Final = (1 << 64) - 1


class RasCommands:
    """The commands `ras_sources`, `ras_report` and `ras_keep`.

    Attributes:
        commands: by name.
    """

    def __init__(self, server: Server, connections: Connections) -> None:
        self._server = server
        self._connections = connections
        self.commands = commands_of(self)

    @handles(
        "ras_sources",
        result="`sources`: the error sources of the HEST and how they are: see below",
    )
    def _sources(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        errors = self._server.errors

        def sources() -> dict[str, Any]:
            return {"sources": errors.report()}

        return self._when_looked(errors.lines(), client, message, sources)

    @handles(
        "ras_report",
        Field("source", ": its name"),
        Field("block", ": a generic error status block in base64, 20 bytes up to what the source takes"),
        Field("vcpu", ": which one is told (any)"),
        Field("address", ": virtual, what FAR holds in a synchronous external abort (none)"),
        Switch("wait", default=False),
        Number(
            "limit", 1, _MAX_LIMIT, default=10, about=": seconds in which a vCPU is to be where an abort can hit it"
        ),
        Switch("force", default=False, about=": also while the error before is not read, or SDEI is masked"),
        Switch("raw", default=False, about=": the block is written as it is, well-formed or not"),
        result="`source`, `bytes`; `outcome`: `queued`, or with `wait` and a source that SDEI tells of `completed`, "
        "with `vcpu`, `entry_ns` and `complete_ns` as of `inject`. With `wait` a source that an abort or an interrupt "
        "tells of is answered when the guest has that. What is refused has written nothing, or was taken back",
        changes=True,
    )
    def _report(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        errors = self._server.errors
        placed = errors.find(_text(message, "source"))
        block = _bytes(_text(message, "block"))
        vcpu = vcpu_if_given(message)
        address = integer_if_given(message, "address", _MAX_ADDRESS)
        line = placed.source.interrupt

        def report() -> dict[str, Any] | None:
            return self._report_now(client, message, placed, block, vcpu, address)

        return self._when_looked([] if line is None else [line], client, message, report)

    @handles(
        "ras_keep",
        Field("block", ": a generic error status block in base64"),
        result="`bytes`. Nobody is told: the BERT of the next boot has it, as that of a platform whose firmware hears "
        "of an error from its watchdog or its BMC",
        changes=True,
    )
    def _keep(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        block = _bytes(_text(message, "block"))
        _check_form(block)
        self._server.errors.keep(block)
        return {"bytes": len(block)}

    def _report_now(
        self,
        client: Client,
        message: dict[str, Any],
        placed: ErrorSource,
        block: bytes,
        vcpu: int | None,
        address: int | None,
    ) -> dict[str, Any] | None:
        errors = self._server.errors
        errors.check(placed, block, vcpu, force=message["force"])
        if not message["raw"]:
            _check_form(block)
        about = {"source": placed.source.name, "bytes": len(block)}
        event, target = placed.source.event, errors.target(placed, vcpu)
        if event is None and message["wait"] and placed.source.notify is not Notify.POLLED:
            then = self._telling(client, message, about)
            errors.tell(placed, block, target, address=address, limit=message["limit"], then=then)
            return None
        if event is None or not message["wait"]:
            told = errors.tell(placed, block, target, address=address, limit=message["limit"])
            return {"outcome": "queued", "vcpu": told, **about}
        injections = self._server.injections
        injections.check_room(client)
        shared = self._server.firmware.dispatcher.describe(event).type is EventType.SHARED
        # For a shared event the PE is a wish: another one may take it.
        waiter = injections.add(event, None if shared else target, client, self._replier(client, message, about))
        try:
            errors.tell(placed, block, target)
        except SdeiError:
            injections.forget(waiter)
            raise
        return None

    def _when_looked(
        self,
        lines: list[int],
        client: Client,
        message: dict[str, Any],
        then: Callable[[], dict[str, Any] | None],
    ) -> dict[str, Any] | None:
        """What `then` answers, once a vCPU has looked whether these interrupts would reach the guest."""
        if not lines:
            return then()
        request = message["id"]

        def looked() -> None:
            try:
                result = then()
            except SdeiError as error:
                self._connections.send(client, {"id": request, **jsonline.CONTROL.refusal(error)})
            else:
                if result is not None:
                    self._connections.send(client, {"id": request, **jsonline.success(result)})

        self._server.errors.notifications.refresh(lines, looked)
        return None

    def _telling(self, client: Client, message: dict[str, Any], about: dict[str, Any]) -> Then:
        """Answers when the guest has taken the abort or the interrupt."""
        request = message["id"]

        def then(outcome: Outcome) -> None:
            if outcome.made is False:
                answer = jsonline.refusal("state", f"source {about['source']!r}: {outcome.why}")
            else:
                answer = jsonline.success({"outcome": "queued", "vcpu": outcome.vcpu, **about})
            self._connections.send(client, {"id": request, **answer})

        return then

    def _replier(self, client: Client, message: dict[str, Any], about: dict[str, Any]) -> Callable[[Answer], None]:
        request = message["id"]

        def reply(answer: Answer) -> None:
            result = {"result": answer["result"] | about} if answer["ok"] else {}
            self._connections.send(client, {"id": request, **answer, **result})

        return reply


def _text(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise UsageError(f"{name} is a text")
    return value


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise UsageError("block is not base64") from None


def _check_form(block: bytes) -> None:
    # Imported here: 0.1 s of tables, and most guests have no error sources. Those that do have them from the start.
    from qemu_sdei.ras.block import parse_block

    try:
        found = parse_block(block)
    except CperError as error:
        raise UsageError(f"block is not a generic error status block: {error}") from None
    if not found.count:
        raise UsageError("block is not a generic error status block: its Block Status says that it has no entry")
