"""The control socket's command `nmi`: an NMI, by the first way that the guest accepts."""

from __future__ import annotations

from typing import Any

from qemu_sdei import jsonline
from qemu_sdei.backend.control.commands import Field, commands_of, handles, vcpu_if_given
from qemu_sdei.backend.control.connections import Client, Connections
from qemu_sdei.backend.loop import nmi
from qemu_sdei.backend.loop.nmi import AGDI_INTERRUPT, WAYS, Way
from qemu_sdei.backend.loop.notifications import Outcome
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import NotDeliveredError, SdeiError, UsageError
from qemu_sdei.sdei.dispatcher import Trigger
from qemu_sdei.services.psci import Power


class NmiCommands:
    """The command `nmi`.

    Attributes:
        commands: by name.
    """

    def __init__(self, server: Server, connections: Connections) -> None:
        self._server = server
        self._connections = connections
        self.commands = commands_of(self)

    @handles(
        "nmi",
        Field("vcpu", " (whichever takes it)"),
        Field("by", f" ({', '.join(f'`{way}`' for way in WAYS)}: the first that the guest has registered and enabled)"),
        result="`by`; `event` or `intid`, the other one null; `vcpu` that it is for, or null; `outcome`: `queued` or "
        "`merged` (it was pending already); `reason`: why it is not delivered yet, or null. Where the guest takes none "
        "the error is of kind `state`, and says which kernel option would bring one",
        changes=True,
    )
    def _nmi(self, client: Client, message: dict[str, Any]) -> dict[str, Any] | None:
        vcpu = vcpu_if_given(message)
        by = message.get("by")
        if by is not None and by not in WAYS:
            raise UsageError(f"by is one of {', '.join(WAYS)}")
        server = self._server
        count = server.window.nr_cpus
        if vcpu is not None and vcpu >= count:
            raise UsageError(f"there is no vCPU {vcpu}: this guest has 0 to {count - 1}")
        found = self._found(vcpu)
        wanted = [way for way in WAYS if by in (None, way)]
        first = found[wanted[0]]
        interrupt = found.get(AGDI_INTERRUPT)
        if AGDI_INTERRUPT not in wanted or not isinstance(interrupt, Way) or (isinstance(first, Way) and by is None):
            return self._by_event(found, wanted)
        assert interrupt.intid is not None
        request = message["id"]

        def then(outcome: Outcome) -> None:
            if outcome.made:
                done: dict[str, Any] = jsonline.success(_result(interrupt, "queued", None, outcome.vcpu))
            else:
                done = self._without(outcome, vcpu, wanted)
            self._connections.send(client, {"id": request, **done})

        try:
            server.notifier.interrupt(interrupt.intid, then=then)
        except SdeiError as error:
            found[AGDI_INTERRUPT] = str(error)
            return self._by_event(found, wanted)
        return None

    def _without(self, outcome: Outcome, vcpu: int | None, wanted: list[str]) -> dict[str, Any]:
        """The answer where the interrupt was not taken: by what comes after it."""
        found = self._found(vcpu) | {AGDI_INTERRUPT: str(outcome.why)}
        try:
            return jsonline.success(self._by_event(found, wanted))
        except SdeiError as error:
            return jsonline.CONTROL.refusal(error)

    def _found(self, vcpu: int | None) -> dict[str, Way | str]:
        firmware = self._server.firmware
        dispatcher, power = firmware.dispatcher, firmware.psci.power
        if not firmware.serves_sdei:
            no: dict[str, Way | str] = dict.fromkeys(WAYS, "this guest's firmware has no SDEI (--no-sdei)")
            return no | {AGDI_INTERRUPT: nmi.interrupt_way(dispatcher.profile)}
        on = [pe for pe in range(len(power)) if power[pe] is Power.ON]
        return nmi.event_ways(dispatcher, on, vcpu) | {AGDI_INTERRUPT: nmi.interrupt_way(dispatcher.profile)}

    def _by_event(self, found: dict[str, Way | str], wanted: list[str]) -> dict[str, Any]:
        server = self._server
        for by in wanted:
            way = found[by]
            if isinstance(way, Way) and way.event is not None:
                merged = server.trigger(way.event, way.vcpu) is Trigger.MERGED
                reason = server.firmware.dispatcher.why_pending(way.event, way.vcpu)
                return _result(way, "merged" if merged else "queued", reason, way.vcpu)
        raise NotDeliveredError(nmi.nothing({by: found[by] for by in wanted}))


def _result(way: Way, outcome: str, reason: str | None, vcpu: int | None) -> dict[str, Any]:
    return {
        "by": way.by,
        "event": way.event,
        "intid": way.intid,
        "vcpu": vcpu,
        "outcome": outcome,
        "reason": reason,
    }
