"""All that is known of a running guest, asked from outside: the backend's status, and the machine around it.

What `qemu-sdei status` and `top` show, and `status --json` prints; `status_schema.py` is its form.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei import guest_identity, rundir, stopped
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import NotDeliveredError, ProtocolError, SdeiError
from qemu_sdei.guest import machine_control
from qemu_sdei.guest.control_client import CONNECT_TIMEOUT, ControlClient
from qemu_sdei.vm.options import NO_KERNEL

_LOOK_AGAIN: Final = 5.0
"""Seconds after which the guest's processes may be others."""
_SUPERVISOR: Final = "supervisor"
_QEMU: Final = "QEMU"


class Overview:
    """Looks at one guest, again and again; where it migrates on this host, it is followed."""

    def __init__(
        self, guest: rundir.Running, *, timeout: float = 10.0, connect_timeout: float = CONNECT_TIMEOUT
    ) -> None:
        """`timeout`, `connect_timeout`: seconds for an answer of the backend, and for it to be there at all."""
        self._asked = 0.0
        self._processes: tuple[float, Path | None, dict[str, int]] = 0.0, None, {}
        """When and where they were looked for."""
        self.client = ControlClient(
            guest.control, identity=guest.identity, timeout=timeout, connect_timeout=connect_timeout
        )

    def __enter__(self) -> Overview:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    @property
    def directory(self) -> Path:
        """The guest's run directory now."""
        return self.client.path.parent

    @property
    def ended(self) -> bool:
        """The guest is not there any more, in the ordinary way: nothing is left of it, or another one has its name."""
        found = guest_identity.read(self.directory)
        return not self.directory.is_dir() or bool(self.client.identity and found and found != self.client.identity)

    def gone(self, every: float) -> str:
        """Why there is nothing more to see, in a sentence; "" while the guest is there. Where it has moved on this
        host, it is followed.

        `every`: seconds after which the backend is asked again. Raises `LostGuestError`: it has no backend, and nobody
        who would start another. One that does not answer just now may come back.
        """
        if not self.ended:
            if time.monotonic() - self._asked < every:
                return ""
            self._asked = time.monotonic()
            try:
                self.client.hello()
            except NotDeliveredError as error:  # it is at another host now
                return str(error).partition(";")[0]
            except SdeiError:
                if rundir.deserted(self.directory):
                    raise
            if not self.ended:
                return ""
        return f"guest {self.directory.name!r} has ended"

    def look(self) -> dict[str, Any]:
        """The whole document. Raises `SdeiError`: the backend does not answer."""
        hello = self.client.hello()
        status = self.client.status()
        return status | {"host": self._host(hello)}

    def _host(self, hello: dict[str, Any]) -> dict[str, Any]:
        """What is around the backend: processes, and whether the vCPUs run. `hello`: the backend's answer to that."""
        directory = self.directory
        processes = self._processes_of(directory)
        owner, qemu = processes.get(_SUPERVISOR), processes.get(_QEMU)
        facts: dict[str, Any] = {
            "directory": str(directory),
            "supervisor_pid": owner,
            "qemu_pid": qemu,
            "backend_pid": hello.get("pid"),
            "stopped": self._stopped(processes),
            "qemu_up_ns": None if qemu is None else stopped.age_ns(qemu),
            "vcpus": None if stopped.is_stopped(qemu) else self.run_state(owner),
            "cpu": None,
            "memory": None,
            "kernel": None,
        }
        try:
            config = GuestConfig.from_json((directory / rundir.CONFIG).read_bytes())
        except (OSError, ProtocolError):
            return facts  # it has just moved, or ended
        kernel = config.boot.get("kernel")
        known = None if kernel is None else str(kernel) or NO_KERNEL
        facts |= {"cpu": config.cpu, "memory": config.ram_size, "kernel": known}
        return facts

    def _processes_of(self, directory: Path) -> dict[str, int]:
        """The guest's processes; they are looked for now and then only, which takes as long as all else together."""
        when, where, found = self._processes
        if where != directory or time.monotonic() - when > _LOOK_AGAIN:
            found = stopped.processes(directory)
            self._processes = time.monotonic(), directory, found
        return found

    @staticmethod
    def _stopped(processes: dict[str, int]) -> str:
        """Which of the processes are stopped, and what to do; "" if none is."""
        return "; ".join(stopped.described(what, pid) for what, pid in processes.items() if stopped.is_stopped(pid))

    def run_state(self, owner: int | None) -> str | None:
        """Whether the vCPUs run, as `machine_control.run_state`; None where nobody says. `owner`: the supervisor."""
        if stopped.is_stopped(owner):
            return None
        try:
            return machine_control.run_state(self.directory / rundir.OWNER, self.client.identity)
        except SdeiError:
            return None  # a QEMU of the user's own, one that hangs, or a supervisor of an older version

    def registers(self, vcpu: int) -> dict[str, Any]:
        """Registers of a vCPU now: {"vcpu", "values": {name: number; "EL": text}}. Raises `SdeiError`."""
        owner = self.directory / rundir.OWNER
        return {"vcpu": vcpu, "values": machine_control.registers(owner, vcpu, self.client.identity)}


def name_addresses(status: dict[str, Any], name: Callable[[int], str]) -> None:
    """Add to each vCPU whose PC is known what `name` says of it, and to registers that were asked for."""
    for pe in status.get("pes", ()):
        if isinstance(pe, dict) and type(pc := pe.get("pc")) is int:
            pe["pc_symbol"] = name(pc)
    registers = status.get("registers")
    if registers is not None:
        registers["pc_symbol"] = name(registers["values"]["PC"])


def rates(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any] | None:
    """What has happened a second between two looks at one guest; None: there is no time between them, or another boot
    of the program counts anew.

    Returns {"over_ns", "calls": [per vCPU], "delivered": [per vCPU], "shared_delivered"}: floats. Deliveries of a
    shared event are counted apart, as no vCPU's own.
    """
    try:
        over = after["now_ns"] - before["now_ns"]
        if over <= 0 or len(before["pes"]) != len(after["pes"]):
            return None
        calls = [_calls(new) - _calls(old) for old, new in zip(before["pes"], after["pes"], strict=True)]
        old, new = _delivered(before), _delivered(after)
    except (KeyError, TypeError):
        return None  # a backend of an older version
    events = [new.get(pe["pe"], 0) - old.get(pe["pe"], 0) for pe in after["pes"]]
    shared = new.get(None, 0) - old.get(None, 0)
    if min(*calls, *events, shared, 0) < 0:
        return None
    second = over / 1e9
    return {
        "over_ns": over,
        "calls": [count / second for count in calls],
        "delivered": [count / second for count in events],
        "shared_delivered": shared / second,
    }


def _calls(pe: dict[str, Any]) -> int:
    return sum(pe["calls"].values())


def _delivered(status: dict[str, Any]) -> dict[int | None, int]:
    """Handlers that were entered, by vCPU; None: those of shared events."""
    found: dict[int | None, int] = {}
    for event in status["events"]:
        for instance in event["instances"]:
            where = instance["pe"]
            found[where] = found.get(where, 0) + instance["triggers"]["delivered"]
    return found
