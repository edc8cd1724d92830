"""Where everything stands, for the control socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qemu_sdei.backend.firmware.function_names import function_name

if TYPE_CHECKING:
    from qemu_sdei.backend.loop.server import Server


def status(server: Server) -> dict[str, Any]:
    """Where everything stands, JSON-able: see docs/internals.md, "Control socket"."""
    firmware = server.firmware
    sdei = firmware.dispatcher.status()
    pes = [
        entry
        | {
            "power": firmware.psci.power[pe].name.lower().removeprefix("on_"),
            "not_heard_of_since": server.starts.silent(pe),
            "calls": {function_name(f): counts[pe] for f, counts in sorted(server.calls.items()) if counts[pe]},
        }
        for pe, entry in enumerate(sdei["pes"])
    ]
    events = sdei["events"] if firmware.serves_sdei else []
    triggers = firmware.dispatcher.counts()
    counts = {
        "calls": sum(map(sum, server.calls.values())),
        "accepted": sum(row[2] for row in triggers),
        "merged": sum(row[3] for row in triggers),
        "dropped": sum(row[4] for row in triggers),
        "delivered": firmware.delivered,
        "completed": firmware.delivered - sum(len(pe["running"]) for pe in sdei["pes"]),
        "rejected": server.rejected,
    }
    boot = {"epoch": firmware.epoch, "kernels": firmware.kernels}
    return boot | {"pes": pes, "events": events, "counts": counts}
