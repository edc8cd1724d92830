"""The form of what `qemu-sdei status --json` prints, declared once: as a JSON Schema.

`scripts/docgen.py` prints it as docs/reference/status.schema.json. The backend's answer to `status`
(docs/reference/control-protocol.md) is the same without what is optional here.
"""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei.json_schema import Schema, array, boolean, integer, record, ref, text
from qemu_sdei.monitor.layout import MAX_CPUS
from qemu_sdei.sdei import constants as sdei
from qemu_sdei.sdei.transitions import STATE_NAMES

_WORD: Final = (1 << 64) - 1
_COUNT: Final = (1 << 63) - 1


def _or_null(schema: Schema) -> Schema:
    """The same, or null: it is not known, or there is none."""
    return {**schema, "type": [schema["type"], "null"]}


def _word(choices: list[str], about: str = "") -> Schema:
    return text(about, enum=choices)


def _by_name(item: Schema, about: str) -> Schema:
    return {
        "description": about,
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {"^[A-Za-z0-9_]{1,64}$": item},
    }


_TIME: Final = "host's monotonic clock, ns"
_NUMBER: Final[Schema] = {"type": "number", "minimum": 0}
_VCPU: Final = integer(0, MAX_CPUS - 1, "vCPU")
_ADDRESS: Final = integer(0, _WORD, "64 bits")
_TEXT_OR_NULL: Final = _or_null(text())
_PID: Final = _or_null(integer(1, about="process id; null: there is none, or it is not known"))

_INSTANCE: Final = record(
    {
        "pe": _or_null(_VCPU),
        "state": _word(list(STATE_NAMES.values()), "sdei-states.md"),
        "registered": boolean(),
        "enabled": boolean(),
        "running": boolean("its handler runs"),
        "pending": boolean(),
        "since_ns": _or_null(integer(0, about=f"in this state since then ({_TIME}); null: before this backend")),
        "waits": {**_TEXT_OR_NULL, "description": "pending: why it is not delivered; null: it is on its way"},
        "triggers": record(
            {name: ref("count") for name in ("accepted", "merged", "dropped", "delivered")},
            "accepted = merged + dropped + delivered + 1 if one is pending",
        ),
        "routed_to": _or_null(_VCPU),
        "running_on": _or_null(_VCPU),
    },
    "of one vCPU, or of a shared event (pe is null, and the last two are there)",
    optional=("routed_to", "running_on"),
)

_EVENT: Final = record(
    {
        "event": integer(0, sdei.EVENT_NUMBER_MAX, "its number"),
        "name": text(),
        "type": _word(["private", "shared"]),
        "priority": _word(["normal", "critical"]),
        "signalable": boolean("EVENT_SIGNAL takes it"),
        "intid": integer(0, about="of the interrupt that is bound to it"),
        "instances": array(ref("instance"), 1, MAX_CPUS),
    },
    optional=("intid",),
)

_PE: Final = record(
    {
        "pe": _VCPU,
        "affinity": _ADDRESS,
        "on": boolean("as SDEI sees it"),
        "masked": boolean("SDEI is masked there (PE_MASK)"),
        "running": array(integer(0, sdei.EVENT_NUMBER_MAX), 0, sdei.MAX_NESTING, "handlers, outermost first: events"),
        "power": _word(["on", "off", "pending"], "pending: CPU_ON was called, the vCPU has not come yet"),
        "power_since_ns": _or_null(integer(0, about=f"{_TIME}; null: before this backend")),
        "not_heard_of_since": _or_null(integer(0, _WORD, "entry point where it was started, without a call since")),
        "pc": _or_null(integer(0, _WORD, "where it went on when it was last at EL3")),
        "pstate": _or_null(integer(0, _WORD, "and with which PSTATE")),
        "pc_symbol": text("the same as function+offset/size, where symbols are known"),
        "last_call": {
            **_TEXT_OR_NULL,
            "description": "the call by which it was there last; null: none, but another cause",
        },
        "calls": _by_name(ref("count"), "function, or its id, and how often it was called"),
    },
    "a vCPU",
    optional=("pc_symbol",),
)

_SOURCE: Final = record(
    {
        "name": text(),
        "id": integer(0, 0xFFFF, "source id in the HEST"),
        "type": _word(["ghes", "ghes-v2"]),
        "notify": _word(["sdei", "sea", "interrupt", "external", "polled"], "how the guest hears of an error"),
        "event": _or_null(integer(0, sdei.EVENT_NUMBER_MAX, "notified by SDEI: the event")),
        "interrupt": _or_null(integer(32, 1019, "notified by interrupt: its INTID")),
        "poll_ms": _or_null(integer(1, about="polled: how often")),
        "block": integer(20, about="bytes of the error status block"),
        "raw": integer(0, about="Max Raw Data Length"),
        "records": integer(1, about="Number Of Records To Preallocate"),
        "sections": integer(1, about="Max Sections Per Record"),
        "address": integer(0, _WORD, "of the block"),
        "address_register": integer(0, _WORD, "where the guest reads that address"),
        "read_ack": _or_null(integer(0, _WORD, "the read-ack register's; null: it has none")),
        "state": _word(
            ["free", "unread", "unacknowledged", "damaged"],
            "unread: an error lies there; unacknowledged: it was read, and the read-ack register is not set; damaged: "
            "the guest has written over the block's address",
        ),
        "status": integer(0, 0xFFFFFFFF, "first word of the block"),
        "ready": boolean("somebody would notice an error now"),
        "reason": {**_TEXT_OR_NULL, "description": "why nobody would"},
    },
    "an error source of the HEST",
)

_HOST: Final = record(
    {
        "directory": text("run directory"),
        "supervisor_pid": _PID,
        "qemu_pid": _PID,
        "backend_pid": _PID,
        "stopped": text("which of these are stopped, and what to do; empty if none is"),
        "qemu_up_ns": _or_null(integer(0, about="since QEMU was started here: the guest, or its arrival")),
        "vcpus": {**_TEXT_OR_NULL, "description": "running, paused, or what else QEMU says; null: nobody says"},
        "cpu": {**_TEXT_OR_NULL, "description": "QEMU's -cpu argument"},
        "memory": _or_null(integer(0, about="bytes")),
        "kernel": _TEXT_OR_NULL,
    },
    "what is around the backend",
)

_VCPUS: Final = array(_VCPU, 0, MAX_CPUS)
_FIRMWARE: Final = record(
    {
        "profile": text("name of the firmware profile; spec: the firmware does nothing wrong on purpose"),
        "summary": text("what it does, in a line"),
        "rules": array(
            record(
                {
                    "rule": text("firmware-profiles.md"),
                    "why": text(),
                    "acted": integer(0, _COUNT, "how often it has acted"),
                }
            )
        ),
        "deaf": {**_VCPUS, "description": "vCPUs that it has made take no interrupt and no event"},
        "stuck": {**_VCPUS, "description": "vCPUs that it has left in EL3"},
        "held": {**_VCPUS, "description": "vCPUs that take no interrupt until their handlers complete"},
    },
    "what the firmware does wrong on purpose",
)

_RATES: Final = record(
    {
        "over_ns": integer(1, about="time between two looks"),
        "calls": array(_NUMBER, 1, MAX_CPUS, "a second, by vCPU"),
        "delivered": array(_NUMBER, 1, MAX_CPUS, "handlers entered a second, by vCPU: private events"),
        "shared_delivered": {**_NUMBER, "description": "the same of shared events"},
    },
    "status --watch, top --once: what happens",
)

_REGISTERS: Final = record(
    {
        "vcpu": _VCPU,
        "values": {
            "description": "PC, PSTATE, SP, X0 to X30; EL: exception level and stack pointer in use",
            "type": "object",
            "additionalProperties": False,
            "required": ["PC"],
            "patternProperties": {
                "^(PC|PSTATE|SP|X[0-9]{1,2})$": _ADDRESS,
                "^EL$": text(),
            },
        },
        "pc_symbol": text(),
    },
    "status --registers: of one vCPU, as QEMU has them",
    optional=("pc_symbol",),
)

SCHEMA: Final[dict[str, Any]] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "qemu-sdei status",
    **record(
        {
            "name": _TEXT_OR_NULL,
            "epoch": integer(0, about="machine resets, the first boot being 1"),
            "kernels": integer(0, about="kernels that have begun since; 2 and more: kexec, a capture kernel"),
            "now_ns": integer(0, about=_TIME),
            "started_ns": integer(0, about="when this backend began"),
            "reset_ns": _or_null(
                integer(0, about="when the machine last came out of reset; null: before this backend")
            ),
            "client_el": integer(1, 2, "exception level of SDEI's client"),
            "firmware": ref("firmware"),
            "counts": record(
                {
                    name: ref("count")
                    for name in ("calls", "accepted", "merged", "dropped", "delivered", "completed", "rejected")
                }
            ),
            "pes": array(ref("pe"), 1, MAX_CPUS),
            "events": array(ref("event")),
            "sources": array(ref("source"), about="error sources of the HEST; none: a guest without ACPI"),
            "host": ref("host"),
            "rates": {"anyOf": [ref("rates"), {"type": "null"}]},
            "registers": ref("registers"),
            "latency": {"description": "top: how long events took, in µs (docs/howto/latency.md)", "type": "object"},
        },
        "control-protocol.md says more of the fields.",
        optional=("sources", "firmware", "host", "rates", "registers", "latency"),
    ),
    "definitions": {
        "count": integer(0, _COUNT),
        "instance": _INSTANCE,
        "event": _EVENT,
        "pe": _PE,
        "source": _SOURCE,
        "firmware": _FIRMWARE,
        "host": _HOST,
        "rates": _RATES,
        "registers": _REGISTERS,
    },
}
