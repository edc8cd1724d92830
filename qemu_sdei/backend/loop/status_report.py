"""Where everything stands, for the control socket."""

from __future__ import annotations

from typing import Any

from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.backend.loop.state_times import StateTimes
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.services.function_names import function_name
from qemu_sdei.services.psci import Power
from qemu_sdei.smccc.ids import FUNCTION_MASK


def status(guest: ServedGuest, rejected: int, times: StateTimes) -> dict[str, Any]:
    """Where everything stands, JSON-able: see docs/reference/control-protocol.md. `rejected`: as `EventLog` counts."""
    firmware = guest.firmware
    sdei = firmware.dispatcher.status()
    pes = [
        entry
        | {
            "power": firmware.psci.power[pe].name.lower().removeprefix("on_"),
            "power_since_ns": times.vcpu(pe),
            "not_heard_of_since": guest.starts.silent(pe),
            **_last_exchange(guest.window.frames[pe], on=firmware.psci.power[pe] is Power.ON),
            "calls": {function_name(f): counts[pe] for f, counts in sorted(guest.calls.items()) if counts[pe]},
        }
        for pe, entry in enumerate(sdei["pes"])
    ]
    events = sdei["events"] if firmware.serves_sdei else []
    for event in events:
        for instance in event["instances"]:
            running = instance["running"]
            instance["since_ns"] = times.event(event["event"], instance["pe"], running=running)
    triggers = firmware.dispatcher.counts()
    counts = {
        "calls": sum(map(sum, guest.calls.values())),
        "accepted": sum(row[2] for row in triggers),
        "merged": sum(row[3] for row in triggers),
        "dropped": sum(row[4] for row in triggers),
        "delivered": firmware.exchange.delivered,
        "completed": firmware.exchange.delivered - sum(len(pe["running"]) for pe in sdei["pes"]),
        "rejected": rejected,
    }
    boot = {"epoch": firmware.machine.epoch, "kernels": firmware.machine.kernels}
    clock = {"now_ns": times.clock(), "started_ns": times.started_ns, "reset_ns": times.reset_ns}
    return boot | clock | {"client_el": sdei["client_el"], "pes": pes, "events": events, "counts": counts}


def _last_exchange(frame: memoryview, *, on: bool) -> dict[str, Any]:
    """Where a vCPU went on when it was last at EL3, and by which call it had come, as its frame says. A guest that
    writes there deceives itself.
    """
    if not on:
        return {"pc": None, "pstate": None, "last_call": None}
    call = function_name(frame[Word.FUNCTION] & FUNCTION_MASK) if frame[Word.KIND] == Kind.SMC else None
    return {"pc": frame[Word.PC], "pstate": frame[Word.PSTATE], "last_call": call}
