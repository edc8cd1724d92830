"""What other processes ask of a guest's machine by its owner socket: whether its vCPUs run, pause, resume, registers.

The requests: `run-state`, `pause`, `continue`, and `registers` with the field `vcpu`. (`resume` is another one: a guest
that may run at another host goes on here.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from qemu_sdei.errors import GuestError, ProtocolError, UsageError
from qemu_sdei.guest.guest_snapshots import Alone
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.supervisor_client import ask
from qemu_sdei.guest.supervisor_socket import Command, Progress
from qemu_sdei.vm.cpu_registers import parse

RUNNING: Final = "running"
PAUSED: Final = "paused"
UNSTARTED: Final = "prelaunch"
"""QEMU's word for a guest of which no vCPU has run yet: `GuestOptions.paused`."""
_LOOK: Final = 2.0
"""Seconds that a look at the machine may take: it is beside the point of whatever is shown."""
_ACT: Final = 40.0
"""The same of what was asked for; QEMU's own limit is 30."""


class MachineControl:
    """Does it, in the guest's event loop."""

    def __init__(self, record: GuestRecord, alone: Alone) -> None:
        self._record = record
        self._alone = alone

    @property
    def commands(self) -> dict[str, Command]:
        """The requests by their names. Each raises `UsageError`: there is no such vCPU, or the guest is being handed
        over; `GuestError`: QEMU does not do it.
        """
        return {
            "run-state": self._look,
            "pause": lambda request, progress: self._change("stop"),
            "continue": lambda request, progress: self._change("cont"),
            "registers": self._registers,
        }

    async def _look(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        return {"status": await self._status()}

    async def _change(self, command: str) -> dict[str, Any]:
        # Whoever moves the guest, or writes it down, has it paused and resumed as it needs.
        with self._alone.alone():
            before = await self._status()
            if before not in (RUNNING, PAUSED, UNSTARTED):
                raise UsageError(f"the guest cannot be paused or resumed while QEMU says that it is {before!r}")
            await self._execute(command, {})
            return {"before": before, "status": await self._status()}

    async def _registers(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        vcpu = request.get("vcpu")
        vcpus = self._record.options.smp
        if type(vcpu) is not int or not 0 <= vcpu < vcpus:
            raise UsageError(f"there is no vCPU {vcpu}: this guest has 0 to {vcpus - 1}")
        words = {"command-line": "info registers", "cpu-index": vcpu}
        return {"vcpu": vcpu, "text": str(await self._execute("human-monitor-command", words))}

    async def _status(self) -> str:
        found = await self._execute("query-status", {})
        status = found.get("status") if isinstance(found, dict) else None
        if not isinstance(status, str):
            raise GuestError("QEMU does not say whether the guest runs")
        return status

    async def _execute(self, command: str, arguments: dict[str, object]) -> object:
        return await self._record.supervisor.execute(command, arguments)


# ---- the other side: what another process asks ----------------------------------------------------------------------


def run_state(owner: Path, identity: str = "") -> str:
    """Whether the vCPUs of the guest with this owner socket run: "running", "paused", or another word of QEMU's.

    Raises `SdeiError`: it has no owner, or does not answer.
    """
    return _text(_asked(owner, "run-state", {}, identity, _LOOK), "status")


def pause(owner: Path, identity: str = "") -> str:
    """Stop its vCPUs; returns as `run_state`. Raises `SdeiError`."""
    return _text(_asked(owner, "pause", {}, identity, _ACT), "status")


def resume(owner: Path, identity: str = "") -> str:
    """Have its vCPUs run again; returns as `run_state`. Raises `SdeiError`."""
    return _text(_asked(owner, "continue", {}, identity, _ACT), "status")


def registers(owner: Path, vcpu: int, identity: str = "", *, patience: float = _ACT) -> dict[str, int | str]:
    """Registers of a vCPU by name, as QEMU has them now: see `cpu_registers.parse`. `patience`: seconds. Raises
    `SdeiError`.
    """
    found = parse(_text(_asked(owner, "registers", {"vcpu": vcpu}, identity, patience), "text"))
    if "PC" not in found:
        raise ProtocolError(f"QEMU's registers of vCPU {vcpu} are not of the form that is known")
    return found


def _asked(owner: Path, command: str, fields: dict[str, Any], identity: str, patience: float) -> dict[str, Any]:
    return ask(owner, command, fields, lambda step: None, identity=identity, patience=patience)


def _text(result: dict[str, Any], name: str) -> str:
    value = result.get(name)
    if not isinstance(value, str):
        raise ProtocolError("the supervisor's answer is not of the protocol's form")
    return value
