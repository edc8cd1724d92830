"""The control socket's command for a page of guest RAM that is bad at the host: `memory_error`."""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei import jsonline
from qemu_sdei.backend.control.commands import Field, commands_of, handles, integer, vcpu_if_given
from qemu_sdei.backend.control.connections import Client, Connections
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import SdeiError, UsageError

_WORD: Final = (1 << 64) - 1


class HostErrorCommands:
    """The command `memory_error`.

    Attributes:
        commands: by name.
    """

    def __init__(self, server: Server, connections: Connections) -> None:
        self._server = server
        self._connections = connections
        self.commands = commands_of(self)

    @handles(
        "memory_error",
        Field("address", ": guest physical, of the page that is bad; or"),
        Field("host_address", ": virtual, where the backend has it mapped"),
        Field("source", ": name of the error source (the first that is ready, those of SDEI before others)"),
        Field("vcpu", ": which one is told (any)"),
        result="`page`: guest physical address; `source` that reports it, as a recoverable memory error; `vcpu` that "
        "is told, or null; `outcome`: `queued`. A page that is not the guest's is an error of kind `usage`; where no "
        "source can report it now, of kind `state`, and nothing was written",
        changes=True,
    )
    def _memory_error(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        server = self._server
        given = [name for name in ("address", "host_address") if message.get(name) is not None]
        if len(given) != 1:
            raise UsageError("memory_error wants an address or a host_address")
        address = integer(message, given[0], 0, _WORD)
        if given == ["host_address"]:
            address = server.host_errors.guest_address(address)
        source = message.get("source")
        if not isinstance(source, str | None):
            raise UsageError("source is a text")
        vcpu = vcpu_if_given(message)

        def report() -> dict[str, Any]:
            found = server.host_errors.report(address, source=source, vcpu=vcpu)
            return {"page": found.page, "source": found.source, "vcpu": found.vcpu, "outcome": "queued"}

        if not server.errors.lines():
            return report()

        def looked() -> None:
            try:
                answer = jsonline.success(report())
            except SdeiError as error:
                answer = jsonline.CONTROL.refusal(error)
            self._connections.send(client, {"id": message["id"], **answer})

        server.errors.refresh(looked)
        return None
