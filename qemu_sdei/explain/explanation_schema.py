"""The form of what `qemu-sdei explain --json` prints, declared once: as a JSON Schema.

`scripts/docgen.py` prints it as docs/reference/explain.schema.json.
"""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei.explain.explanation import VERSION
from qemu_sdei.explain.finding import Weight
from qemu_sdei.json_schema import Schema, array, boolean, integer, only, record, text
from qemu_sdei.monitor.layout import MAX_CPUS
from qemu_sdei.sdei import constants as sdei
from qemu_sdei.sdei.transitions import STATE_NAMES

_WORD: Final = (1 << 64) - 1
_GENERAL: Final = 31


def _or_null(schema: Schema, about: str = "") -> Schema:
    """The same, or null: there is none, or it is not known."""
    return {**schema, "type": [schema["type"], "null"], **({"description": about} if about else {})}


_VCPU: Final = integer(0, MAX_CPUS - 1)
_EVENT: Final = integer(0, sdei.EVENT_NUMBER_MAX)
_ADDRESS: Final = integer(0, _WORD)
_TEXT: Final = text()


def _age(since: str) -> Schema:
    return _or_null(integer(0), f"nanoseconds since {since}; null: not known")


_FINDING: Final = record(
    {
        "rule": text("its name"),
        "weight": text(
            "error: the guest hangs by it; warning: something does not go on, or will not; note: good to know",
            enum=[weight.name.lower() for weight in Weight],
        ),
        "title": text("what it is, in a line"),
        "text": text("what happened, in sentences"),
        "todo": text("what the kernel, or a person, has to do next, with the clause; empty: nothing"),
        "evidence": array(_TEXT, about="what it was seen by"),
        "references": array(_TEXT, about="where more is said"),
    },
    "a situation that was recognised",
)
_WAITING: Final = record(
    {
        "event": _EVENT,
        "name": _TEXT,
        "vcpu": _or_null(_VCPU, "null: a shared event"),
        "state": text("sdei-states.md", enum=list(STATE_NAMES.values())),
        "since_ns": _age("it is in that state"),
        "running_on": _or_null(_VCPU, "whose handler runs; null: none"),
        "entered_ns": _age("the handler was entered"),
        "pending": boolean(),
        "triggered_ns": _age("it was triggered"),
        "reason": _or_null(
            text(enum=["disabled", "running", "masked", "off", "behind", "nobody", "coming", None]),
            "why a pending event is not delivered, in a word; nobody: no vCPU takes it, each for its own reason",
        ),
        "why": _or_null(_TEXT, "the same as the end of a sentence"),
        "todo": _or_null(_TEXT, "what has to happen, with the clause"),
    },
    "an event that is pending or whose handler runs",
)
_REFUSAL: Final = record(
    {
        "function": _or_null(_TEXT),
        "call": text("with its arguments"),
        "vcpu": _or_null(_VCPU),
        "result": _or_null({"type": "integer"}),
        "result_name": _or_null(_TEXT),
        "pc": _or_null(_ADDRESS),
        "count": integer(1, about="how often it was refused like this"),
        "age_ns": _age("the newest one"),
        "why": text("the rule, with the clause"),
    },
    "a call that was refused lately",
)
_WHERE: Final = record(
    {
        "pc": _ADDRESS,
        "pc_symbol": _or_null(_TEXT, "function+offset/size; null: no symbols are known"),
        "pstate": _ADDRESS,
        "el": integer(0, 3, "exception level"),
        "x": array(_ADDRESS, 0, _GENERAL, "X0 to X30, as far as they are known"),
        "registers": {
            "description": "system registers",
            "type": "object",
            "additionalProperties": False,
            "patternProperties": {"^[A-Za-z0-9_]{1,32}$": _ADDRESS},
        },
        "active_priorities": array(
            integer(0, 255),
            about="of interrupts that were acknowledged and not ended, as Non-secure software sees them",
        ),
        "by": text("itself: the vCPU came to the firmware", enum=["itself", "QEMU"]),
    }
)
_OF_VCPU: Final = record(
    {
        "vcpu": _VCPU,
        "affinity": integer(0, _WORD, "in MPIDR form"),
        "power": text("pending: CPU_ON was called, it has not come yet", enum=["on", "off", "pending"]),
        "masked": boolean("SDEI is masked there (PE_MASK)"),
        "running": array(_EVENT, 0, sdei.MAX_NESTING, "handlers, outermost first: events"),
        "sleeps": boolean("it waits in the firmware for an interrupt (CPU_SUSPEND)"),
        "came": _or_null(boolean(), "it came when it was asked to; null: it was not asked"),
        "silent_since": _or_null(_ADDRESS, "entry point where it was started, without a call since"),
        "heard_ns": _age("it was heard of last"),
        "last_call": _or_null(_TEXT),
        "last_result": {"description": "name of the result, or its number", "type": ["string", "integer", "null"]},
        "where": {**_WHERE, "type": ["object", "null"], "description": "its registers; null: nobody could tell"},
        "stays": boolean("it was seen more than once, at the same PC"),
    }
)
_ERRORS: Final = record(
    {
        "event": integer(0, sdei.EVENT_NUMBER_MAX, "which says that there is something to read"),
        "source": integer(0, 0xFFFF, "id in the HEST"),
        "address": integer(0, _WORD, "of the status block, as the source's register has it now"),
        "status": integer(0, 0xFFFF_FFFF, "first word of the block"),
        "severity": integer(0, 0xFFFF_FFFF, "of the block"),
        "acknowledged": boolean("bit 0 of the read-ack register"),
    },
    "an error source",
)

SCHEMA: Final[dict[str, Any]] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": f"What qemu-sdei explain --json prints, version {VERSION}",
    **record(
        {
            "version": only(VERSION),
            "guest": text("its name"),
            "epoch": integer(0, about="resets of the machine, from 1"),
            "kernels": integer(0, about="kernels that have begun since the last one"),
            "known_by": _or_null(
                text(enum=["backend", "journal", None]),
                "who told the state of events and vCPUs; journal: the backend does not answer; null: nobody",
            ),
            "backend": _or_null(_TEXT, "why the backend does not answer; null: it does"),
            "qemu": _or_null(_TEXT, "why QEMU does not answer; null: it does"),
            "paused": _or_null(_TEXT, "what QEMU calls it that the vCPUs are stopped; null: they run"),
            "misbehaves": _or_null(
                _TEXT, "what the firmware does wrong on purpose (firmware-profiles.md); null: nothing"
            ),
            "records": integer(0, about="trace records that were looked at"),
            "lost": integer(0, about="records that are missing among them"),
            "reach_ns": _age("the oldest of them"),
            "findings": array(_FINDING, about="the heaviest first"),
            "events": array(_WAITING),
            "refusals": array(_REFUSAL, about="the newest first, each kind once"),
            "vcpus": array(_OF_VCPU, 0, MAX_CPUS),
            "errors": array(_ERRORS, about="error sources of the HEST"),
        }
    ),
}
