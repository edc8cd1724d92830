"""Where everything stands, for the control socket."""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.monitor.layout import Kind, Word
from qemu_sdei.services.function_names import function_name
from qemu_sdei.services.psci import Power
from qemu_sdei.smccc.ids import FUNCTION_MASK
from qemu_sdei.trace.ring import Ring
from qemu_sdei.trace.slots import At, Type

_FRAMES: Final = (Type.FRAME, Type.STAMPED)
_FUNCTION: Final = At.DATA + Word.FUNCTION - Word.KIND


def status(guest: ServedGuest, log: EventLog) -> dict[str, Any]:
    """Where everything stands, JSON-able: see docs/reference/control-protocol.md."""
    guest.ready.collect()
    firmware, times = guest.firmware, log.times
    sdei = firmware.dispatcher.status()
    on = {pe for pe, power in enumerate(firmware.psci.power) if power is Power.ON}
    last = _last_calls(log.ring, on)
    pes = [
        entry
        | {
            "power": firmware.psci.power[pe].name.lower().removeprefix("on_"),
            "power_since_ns": times.vcpu(pe),
            "not_heard_of_since": guest.starts.silent(pe),
            **(_where(guest.window.frames[pe], last.get(pe)) if pe in on else _NOWHERE),
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
        "rejected": log.rejected,
    }
    boot = {"epoch": firmware.machine.epoch, "kernels": firmware.machine.kernels}
    clock = {"now_ns": times.clock(), "started_ns": times.started_ns, "reset_ns": times.reset_ns}
    profile = {"firmware": firmware.misbehaviour.report()}
    return boot | clock | profile | {"client_el": sdei["client_el"], "pes": pes, "events": events, "counts": counts}


_NOWHERE: Final = {"pc": None, "pstate": None, "last_call": None}


def _where(frame: memoryview, call: str | None) -> dict[str, Any]:
    """Where a vCPU went on when it was last at EL3, as its frame says. A guest that writes there deceives itself. Also
    one that only passes a kick on to another vCPU saves its registers there, and posts nothing.
    """
    return {"pc": frame[Word.PC], "pstate": frame[Word.PSTATE], "last_call": call}


def _last_calls(ring: Ring, wanted: set[int]) -> dict[int, str | None]:
    """The call that each of these vCPUs has posted last, as far as the ring tells; None: it was another frame."""
    found: dict[int, str | None] = {}
    for serial in range(ring.serial, max(ring.serial - ring.slots, 0), -1):
        slot = ring.slot(serial)
        tag = slot[At.TAG]
        pe = tag >> 8 & 0xFFF
        if tag & 0xFF in _FRAMES and pe in wanted and pe not in found:
            call = slot[At.DATA] == Kind.SMC
            found[pe] = function_name(slot[_FUNCTION] & FUNCTION_MASK) if call else None
            if len(found) == len(wanted):
                break
    return found
