"""Where everything stands, for the control socket."""

from __future__ import annotations

from typing import Any

from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.services.function_names import function_name


def status(guest: ServedGuest, rejected: int) -> dict[str, Any]:
    """Where everything stands, JSON-able: see docs/reference/control-protocol.md. `rejected`: as `EventLog` counts."""
    firmware = guest.firmware
    sdei = firmware.dispatcher.status()
    pes = [
        entry
        | {
            "power": firmware.psci.power[pe].name.lower().removeprefix("on_"),
            "not_heard_of_since": guest.starts.silent(pe),
            "calls": {function_name(f): counts[pe] for f, counts in sorted(guest.calls.items()) if counts[pe]},
        }
        for pe, entry in enumerate(sdei["pes"])
    ]
    events = sdei["events"] if firmware.serves_sdei else []
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
    return boot | {"pes": pes, "events": events, "counts": counts}
