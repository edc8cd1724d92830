"""The form of the state document, declared once: as a JSON Schema, with the limits of the code that has the parts.

`scripts/docgen.py` prints it as docs/reference/state-document.schema.json; `state_document.py` checks what comes from
outside by it. The firmware's part is in `firmware_schema.py`. What no schema can say is in `document_rules.py`, and in
the parts themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from qemu_sdei.backend.control.firmware_schema import FIRMWARE
from qemu_sdei.backend.control.schema_words import WORDS, each_cpu
from qemu_sdei.backend.loop import host_errors, pending_injections
from qemu_sdei.config import MAX_RAM
from qemu_sdei.json_schema import Schema, array, boolean, integer, only, record, ref, row, text
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import MAX_CPUS

FORMAT: Final = "qemu-sdei-state"
VERSION: Final = 2
UPGRADES: Final[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}
"""By version, what makes a document of it one of the next version. There is none: no release wrote version 1."""
MAX_SEQ: Final = 1 << 47
_PAGE: Final = 4096


_OUTSIDE: Final = {
    "machine": record(
        {
            "cpu": text("QEMU's -cpu argument"),
            "nr_cpus": ref("nr_cpus"),
            "ram_base": integer(0, about="guest physical address", multipleOf=layout.WINDOW_ALIGN),
            "ram_size": integer(layout.WINDOW_SIZE, MAX_RAM, "bytes, the window included", multipleOf=_PAGE),
            "window": integer(0, about="guest physical address of the frame window", multipleOf=layout.WINDOW_ALIGN),
            "window_version": integer(
                layout.OLDEST, layout.VERSION, "of the frame window's layout, which is that of the guest's EL3 monitor"
            ),
            "virtualization": boolean("the CPUs have EL2: the guest's own, or ours where `client_el` is 1"),
        },
        "must be the same on both sides",
    ),
    "counters": record(
        {
            "delivered": ref("count", "handlers that were entered"),
            "calls": {
                "description": "function id, decimal (-1: those that nobody serves, -2: those after the first 256), "
                "and how often each CPU called it",
                "type": "object",
                "additionalProperties": False,
                "patternProperties": {"^-?[0-9]{1,19}$": each_cpu(ref("count"))},
            },
            "silent": array(
                row("[PE, entry point]", ref("pe"), ref("word")),
                high=MAX_CPUS,
                about="CPUs that are on and have made no call since they were started",
            ),
        },
        optional=("silent",),
    ),
    "cpu": record(
        {
            "seq": ref("word"),
            "answered": integer(0, MAX_SEQ, "number of the newest frame that was answered"),
            "kick": ref("word"),
            "frame": array(ref("word"), layout.FRAME_WORDS, layout.FRAME_WORDS),
        },
        "a CPU's part of the frame window (frame-window.md)",
    ),
    "waiter": record(
        {
            "ticket": text("what the client asks by", minLength=1, maxLength=pending_injections.MAX_TICKET),
            "event": integer(0, 0xFFFF_FFFF),
            "pe": {"description": "null: whichever", "anyOf": [{"type": "null"}, ref("pe")]},
            "waited_ns": integer(0, pending_injections.MAX_NS, "ns since the trigger"),
            "entry_ns": {
                "description": "ns from the trigger to the handler's entry; null: not entered yet",
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": pending_injections.MAX_NS,
            },
        },
        "an injection whose client waits for the outcome",
    ),
}


SCHEMA: Final[Schema] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": f"State document of qemu-sdei, version {VERSION}",
    **record(
        {
            "format": {"const": FORMAT},
            "version": only(VERSION),
            "written_by": text("program and version, for people"),
            "machine": ref("machine"),
            "services": array(
                text(), about="names of the services in the order of their registration; users' ones come last"
            ),
            "counters": ref("counters"),
            "cpus": each_cpu(ref("cpu")),
            "firmware": ref("firmware"),
            "waiting": array(ref("waiter"), high=pending_injections.MAX),
            "bad_pages": array(
                row("[address, pages, touched]", ref("word"), integer(1, host_errors.MAX_PAGES), integer(0, 1)),
                high=host_errors.MAX_WAITING,
                about="pages of RAM that went bad at the host and wait to be reported to the guest",
            ),
        },
        "What a backend knows of its guest. What this schema cannot express, and what it leaves open, stands in "
        "state-document.md.",
        optional=("bad_pages",),
    ),
    "definitions": {**WORDS, **_OUTSIDE, **FIRMWARE},
}
