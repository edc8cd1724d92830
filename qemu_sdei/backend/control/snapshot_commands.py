"""The control socket's commands around a snapshot, for the client that has frozen the guest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qemu_sdei.backend.control import snapshot_state, state_document
from qemu_sdei.backend.control.commands import Field, commands_of, handles
from qemu_sdei.backend.control.connections import Client
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import NotDeliveredError, ProtocolError, UsageError


class SnapshotCommands:
    """The commands `keep`, `take-up` and `forget`: see `snapshot_state`.

    Attributes:
        commands: by name.
    """

    def __init__(self, server: Server, frozen_by: Callable[[Client], bool]) -> None:
        """`frozen_by` tells whether the guest is paused because this client has frozen it."""
        self._server = server
        self._frozen_by = frozen_by
        self.commands = commands_of(self)

    def _check(self, client: Client) -> None:
        if not self._frozen_by(client):
            raise NotDeliveredError("the guest was not frozen by this client")

    @handles(
        "keep",
        Field("note", ": `nonce` (none)"),
        result="`bytes` that the state document takes in guest RAM",
    )
    def _keep(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """Write the state document into guest RAM."""
        self._check(client)
        try:
            note = snapshot_state.checked_note(message.get("note", {}))
            state = state_document.take(self._server)
        except ProtocolError as error:
            raise UsageError(str(error)) from None
        return {"bytes": snapshot_state.write(self._server.window, state, note)}

    @handles(
        "take-up",
        result="`note`; the backend goes on with the document in guest RAM. Each `inject` that waits fails with "
        "`state`",
    )
    def _take_up(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """QEMU has loaded a snapshot: go on with the state document in it."""
        self._check(client)
        injections = self._server.injections
        here = injections.leave()
        try:
            note = snapshot_state.take_up(self._server)
        finally:
            # Who waited when it was saved does not wait any more.
            injections.leave()
            injections.go_on(here)
        injections.abandon("the guest was taken to a snapshot, where nobody has asked for it")
        return {"note": note}

    @handles(
        "forget",
        result="nothing; there is no document in guest RAM any more",
    )
    def _forget(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        """Take the state document out of guest RAM."""
        self._check(client)
        snapshot_state.erase(self._server.window)
        return {}
