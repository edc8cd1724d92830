"""The control socket's command for where the vCPUs are: `look`."""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei.backend.control.commands import Field, Switch, commands_of, handles
from qemu_sdei.backend.control.connections import Client
from qemu_sdei.backend.loop.looks import Look
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.errors import UsageError
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.services.function_names import function_name
from qemu_sdei.smccc.ids import FUNCTION_MASK

_KINDS: Final = {int(kind): kind.name.lower().replace("_", "-") for kind in Kind}


class LookCommands:
    """The command `look`.

    Attributes:
        commands: by name.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.commands = commands_of(self)

    @handles(
        "look",
        Field("vcpus", ": numbers (all)"),
        Switch("ask", default=True, about=": have them come; a later request without has what came"),
        result="`vcpus`: of each that was named where it is, `waiting`: which have not come yet, `errors`: what the "
        "error sources of the HEST hold: see below",
    )
    def _look(self, client: Client, message: dict[str, Any]) -> dict[str, Any]:
        server = self._server
        count = server.window.nr_cpus
        vcpus = message.get("vcpus", list(range(count)))
        if not isinstance(vcpus, list) or not all(type(n) is int and 0 <= n < count for n in vcpus):
            raise UsageError(f"vcpus is a list of numbers from 0 to {count - 1}")
        looks = server.looks
        if message["ask"] and not server.paused and not server.firmware.boot.booting:
            looks.ask(vcpus)
        return {
            "vcpus": [self._vcpu(pe) for pe in sorted(set(vcpus))],
            "waiting": looks.wanted,
            "paused": server.paused,
            "now_ns": server.log.clock(),
            "errors": server.errors.blocks(),
        }

    def _vcpu(self, pe: int) -> dict[str, Any]:
        looks, frame = self._server.looks, self._server.window.frames[pe]
        kind = frame[Word.KIND]
        return {
            "vcpu": pe,
            "look": _document(looks.found.get(pe)),
            "sleeps": looks.sleeps(pe),
            "in_guest": looks.is_out(pe),
            "last": {
                "kind": _KINDS.get(kind, f"{kind:#x}"),
                "function": function_name(frame[Word.FUNCTION] & FUNCTION_MASK) if kind == Kind.SMC else None,
                "pc": frame[Word.PC],
                "pstate": frame[Word.PSTATE],
                "answered": frame[Word.ACK] == self._server.window.seq[pe],
            },
        }


def _document(look: Look | None) -> dict[str, Any] | None:
    if look is None:
        return None
    return {
        "number": look.number,
        "time_ns": look.time_ns,
        "counter": look.counter,
        "pc": look.pc,
        "pstate": look.pstate,
        "x": list(look.x),
        "registers": look.registers,
    }
