"""Guests to look at without QEMU: documents of `status`, and sockets that answer as a guest's do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

from qemu_sdei import guest_identity, rundir
from qemu_sdei.config import GuestConfig
from qemu_sdei.guest.machine_control import MachineControl
from qemu_sdei.guest.supervisor_socket import SupervisorSocket
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.sdei.transitions import (
    BIT_ENABLED,
    BIT_REGISTERED,
    BIT_RUNNING,
    ENABLED,
    REGISTERED,
    RUNNING,
    RUNNING_DISABLED,
    STATE_NAMES,
    UNREGISTER_PENDING,
    UNREGISTERED,
)
from tests.library.test_control_client import Backend, result
from tests.vm.test_cpu_registers import printed

COUNTS = {"accepted": 9, "merged": 3, "dropped": 0, "delivered": 2002, "completed": 2000, "rejected": 0}
NOW = 1_000_000_000_000
STATES = (ENABLED, RUNNING, REGISTERED, UNREGISTERED, RUNNING_DISABLED, UNREGISTER_PENDING)


def instance(state: int, pe: int | None, *, pending: bool = False, **more: Any) -> dict[str, Any]:
    """One of an event."""
    used = state != UNREGISTERED
    return {
        "pe": pe,
        "state": STATE_NAMES[state],
        "registered": bool(state & BIT_REGISTERED),
        "enabled": bool(state & BIT_ENABLED),
        "running": bool(state & BIT_RUNNING),
        "pending": pending,
        "waits": f"event waits: PE {pe} is masked" if pending else None,
        "triggers": {"accepted": 3 * used, "merged": int(used), "dropped": 0, "delivered": (2 - pending) * used},
        "since_ns": NOW - 3_000_000_000 if used else None,
        **({} if pe is not None else {"routed_to": None, "running_on": 1 if state & BIT_RUNNING else None}),
        **more,
    }


def status(vcpus: int = 2, events: int = 3, **more: Any) -> dict[str, Any]:
    """Private events from 0x100 in different states, and a shared one, 0x200, whose handler runs on vCPU 1."""
    private = [
        {
            "event": 0x100 + n,
            "name": f"private-{n}",
            "type": "private",
            "priority": "normal",
            "signalable": n == 0,
            "instances": [
                instance(STATES[(n + pe) % len(STATES)], pe, pending=(n + pe) % 6 == 0 and pe > 0)
                for pe in range(vcpus)
            ],
        }
        for n in range(events)
    ]
    shared = {
        "event": 0x200,
        "name": "shared-a",
        "type": "shared",
        "priority": "critical",
        "signalable": False,
        "instances": [instance(RUNNING, None)],
    }
    pes = [
        {
            "pe": pe,
            "affinity": pe,
            "on": pe != 2,
            "masked": pe == 0,
            "running": [event["event"] for event in private if event["instances"][pe]["running"]][:1],  # type: ignore[index]
            "power": "off" if pe == 2 else "on",
            "power_since_ns": NOW - 192_000_000_000,
            "not_heard_of_since": None,
            "pc": None if pe == 2 else 0xFFFF_8000_0801_B2C8 + 4 * pe,
            "pstate": None if pe == 2 else 0x6000_03C5,
            "last_call": None if pe == 2 else "SDEI_EVENT_COMPLETE",
            "calls": {"SDEI_VERSION": 10 + pe, "SDEI_EVENT_COMPLETE": 1000},
        }
        for pe in range(vcpus)
    ]
    return {
        "name": "demo",
        "epoch": 1,
        "kernels": 1,
        "now_ns": NOW,
        "started_ns": NOW - 192_000_000_000,
        "reset_ns": NOW - 191_000_000_000,
        "client_el": 1,
        "counts": {"calls": 1010 * vcpus, **COUNTS},
        "pes": pes,
        "events": [*private, shared],
        "host": {
            "directory": "/run/qemu-sdei/demo",
            "supervisor_pid": 24701,
            "qemu_pid": 24712,
            "backend_pid": 24742,
            "qemu_up_ns": 193_000_000_000,
            "stopped": "",
            "vcpus": "running",
            "cpu": "cortex-a72",
            "memory": 1 << 30,
            "kernel": "builtin:bench",
        },
        **more,
    }


def source(**more: Any) -> dict[str, Any]:
    """An error source."""
    return {
        "name": "memory",
        "id": 0,
        "type": "ghes-v2",
        "notify": "sdei",
        "event": 0x200,
        "interrupt": None,
        "poll_ms": None,
        "block": 4096,
        "raw": 4096,
        "records": 1,
        "sections": 1,
        "address": 0x7FD0_1000,
        "address_register": 0x7FD0_0000,
        "read_ack": 0x7FD0_0008,
        "state": "free",
        "status": 0,
        "ready": True,
        "reason": None,
        **more,
    }


def rates(vcpus: int = 2) -> dict[str, Any]:
    """What happens a second."""
    return {"over_ns": 1_000_000_000, "calls": [12.0] * vcpus, "delivered": [5.04] * vcpus, "shared_delivered": 0.0}


class Machine:
    """A QEMU that runs or not, as `MachineControl` asks it."""

    def __init__(self) -> None:
        self.status = "running"
        self.options = SimpleNamespace(smp=2)
        self.supervisor = self

    async def execute(self, command: str, arguments: dict[str, object]) -> object:
        """As `Supervisor.execute`."""
        if command == "human-monitor-command":
            return printed(0xFFFF_8000_0801_B2C8, list(range(31)), 0x10, "600003c5 -ZC- NS EL1h", "    FPU disabled\n")
        self.status = {"stop": "paused", "cont": "running"}.get(command, self.status)
        return {"status": self.status}

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """As `LocalMigration.alone`."""
        return contextlib.nullcontext()


class WatchedGuest:
    """A guest as far as its run directory and its sockets tell: a backend that answers with `status` and `records`, and
    a supervisor with a machine.

    Attributes:
        status: the answer to `status`; its clock and counts go on by themselves.
        records: the newest records.
        injected: what was asked for, (event, vCPU).
    """

    def __init__(self, name: str = "demo", document: dict[str, Any] | None = None) -> None:
        self.status = document or status()
        del self.status["host"]
        self.records: list[dict[str, Any]] = []
        self.injected: list[tuple[int, int]] = []
        self.refusal: dict[str, Any] | None = None
        self.machine = Machine()
        self.directory = RunDirectory.create(name)
        config = GuestConfig(name, 2, "cortex-a72", 1 << 30, boot={"kernel": "builtin:bench"})
        (self.directory / rundir.CONFIG).write_text(config.to_json())
        (self.directory / rundir.RUN).write_text("{}")
        self.backend = Backend(self.directory / rundir.CONTROL, self._answer, guest_identity.read(self.directory.path))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._ends = threading.Lock()
        self._thread.start()
        control = MachineControl(self.machine, self.machine)  # type: ignore[arg-type]
        self._owner = SupervisorSocket(control.commands)
        self._run(self._owner.open(self.directory / rundir.OWNER))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _answer(self, request: dict[str, Any]) -> bytes:
        identity = guest_identity.read(self.directory.path)
        match request["cmd"]:
            case "hello":
                return result(request, protocol=1, name=self.status["name"], pid=24742, nr_cpus=2, identity=identity)
            case "status":
                self.status["now_ns"] += 1_000_000_000
                self.status["pes"][1]["calls"]["SDEI_VERSION"] += 7
                return result(request, **self.status)
            case "trace":
                return result(request, records=self.records)
            case "inject":
                self.injected.append((request["event"], request["vcpu"]))
                if self.refusal is not None:
                    return json.dumps({"id": request["id"], "ok": False, "error": self.refusal}).encode() + b"\n"
                return result(request, outcome="completed", entry_ns=40_000, complete_ns=56_000)
        raise AssertionError(request)

    def end(self) -> None:
        """The guest ends in the ordinary way; does nothing the second time. Any thread may say so."""
        with self._ends:
            if self._thread.is_alive():
                self.backend.close()
                self._run(self._owner.close())
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(10)
                self._loop.close()
            self.directory.remove()
