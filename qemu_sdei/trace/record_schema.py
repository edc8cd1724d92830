"""The form of a trace in JSON lines, declared once: of its first line and of each kind of record.

`scripts/docgen.py` prints it, as docs/reference/trace.md for people and as trace.schema.json for programs. Fields that
it does not name may come: a reader passes over what it does not know, so a new field or a new kind of record is no new
version.
"""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei.json_schema import Schema, array, boolean, integer, only, record, ref, text

VERSION: Final = 1
_WORD: Final = (1 << 64) - 1


def _or_null(schema: Schema, about: str = "") -> Schema:
    found = {**schema, "type": [schema["type"], "null"]}
    return {**found, "description": about} if about else found


def _one_of(*words: str, about: str = "") -> Schema:
    return {**text(about), "enum": list(words)}


def _open(parts: dict[str, Schema], about: str = "", *, optional: tuple[str, ...] = ()) -> Schema:
    """An object that has these fields, and maybe others."""
    found = record(parts, about, optional=optional)
    del found["additionalProperties"]
    return found


_WORDS: Final = {
    "word": integer(0, _WORD, "64 bits"),
    "ns": integer(0, about="nanoseconds"),
    "event": integer(0, _WORD, "number of an event"),
}
_WORD_OR_NULL: Final = _or_null(integer(0, _WORD))

META: Final = _open(
    {
        "type": {"const": "trace"},
        "version": only(VERSION),
        "program": text("what wrote it, with its version"),
        "guest": text("the guest's name"),
        "vcpus": integer(1, about="how many vCPUs it has"),
        "client_el": integer(1, 2, "exception level of its kernel"),
        "monitor": integer(0, about="version of its EL3 monitor's frame window"),
        "counter_hz": integer(1, about="ticks of the guest's counter in a second"),
        "started_ns": integer(0, about="host's monotonic clock, ns, when the trace began"),
        "realtime_ns": integer(0, about="host's real time at that moment, ns since 1970"),
        "events": array(
            _open(
                {
                    "event": ref("event"),
                    "name": text(),
                    "type": _one_of("private", "shared"),
                    "priority": _one_of("normal", "critical"),
                },
                optional=("type", "priority"),
            ),
            about="the events of the machine description",
        ),
        "slots": _or_null(integer(1), "records that the ring keeps; null: it does not come from a ring"),
    },
    "First line",
    optional=("monitor", "slots"),
)

COMMON: Final[dict[str, Schema]] = {
    "n": integer(
        0,
        about="serial number: it grows, by more than 1 after a record of long texts; `dropped` tells what is missing",
    ),
    "type": text("which kind of record"),
    "vcpu": _or_null(integer(0), "whose; null: nobody's"),
    "time_ns": _or_null(integer(0), "host's monotonic clock when it was written; null: it was not stamped"),
    "counter": _or_null(
        integer(0, _WORD), "the guest's physical counter when that vCPU came to EL3 last; null: not known"
    ),
    "at_ns": integer(-(1 << 63), about="the one time axis: host's monotonic clock. [How](#time)"),
    "at_error_ns": integer(0, about="how far `at_ns` may be off, to either side"),
}

_PLACE: Final[dict[str, Schema]] = {
    "pc": ref("word", "PC: of a call the instruction after the SMC"),
    "pstate": ref("word", "PSTATE, as SPSR_EL3 has it"),
    "el": integer(0, 3, "exception level that it came from"),
}
_AFTER: Final[dict[str, Schema]] = {
    "answered": boolean("false: it waits for its answer still, or its answer was never written"),
    "then": {
        "description": "what the vCPU does then: `returns` behind the call, enters a `handler`, `resumes` what a "
        "handler had interrupted, `parks` (off or suspended), `waits` for an interrupt, `starts` "
        "where it was sent (a boot, CPU_ON, a wake-up), `operations`: does micro-operations and comes back; null: no "
        "answer",
        "anyOf": [{"type": "null"}, _one_of("returns", "handler", "resumes", "parks", "waits", "starts", "operations")],
    },
    "next_pc": _or_null(integer(0, _WORD), "where it goes on; null: no answer"),
    "pc_symbol": text("the symbol of `pc`, where symbols were given"),
    "next_pc_symbol": text("that of `next_pc`"),
}
_RESULT: Final[dict[str, Schema]] = {
    "result": _or_null(integer(-(1 << 63), (1 << 63) - 1), "x0 as a signed number; null: the call did not return"),
    "result_name": _or_null(text(), "its name, such as `DENIED`; null: it is a value, or there is none"),
}
_LATER: Final = ("next_pc", "pc_symbol", "next_pc_symbol")

KINDS: Final[dict[str, tuple[str, dict[str, Schema], tuple[str, ...]]]] = {
    "call": (
        "A call (SMC) and its answer",
        {
            "function": text("name of the function"),
            "id": ref("word", "function id, as in x0"),
            "args": {
                "description": "arguments by name, in their order",
                "type": "object",
                "additionalProperties": False,
                "patternProperties": {"^[a-z0-9_]{1,32}$": ref("word")},
            },
            "x": array(ref("word"), 6, 6, "x0 to x5"),
            **_PLACE,
            **_RESULT,
            **_AFTER,
        },
        _LATER,
    ),
    "frame": (
        "A vCPU came to EL3 by something else",
        {
            "kind": text(
                "`reset`, `kick` (the backend interrupted it), `interrupt` (a bound event's), `operations` (brings "
                "results of micro-operations), `exception`, `fault` (of the monitor itself), `bad-answer`"
            ),
            **_PLACE,
            "x": array(ref("word"), 6, 6, "x0 to x5"),
            "vector": ref("word", "of `exception`, `fault`, `bad-answer`: offset in the vector table, or why"),
            "esr": ref("word", "ESR_EL3 of these"),
            "intid": ref("word", "of `interrupt`: its INTID"),
            "function": text("of `operations`: the call that asked for them"),
            "call": integer(0, about="its `n`"),
            **_RESULT,
            **_AFTER,
        },
        ("x", "vector", "esr", "intid", "function", "call", "result", "result_name", *_LATER),
    ),
    "transition": (
        "An event changed its state. `DISPATCH` is its delivery, `COMPLETE` the end of its handler",
        {
            "event": ref("event"),
            "from": text("[state](sdei-states.md) before"),
            "to": text("state after"),
            "cause": text("what happened: an action of the [state table](sdei-states.md), or `RESET`"),
            "clause": text("the rule's source: DEN0054 section, and who else says so; empty: none"),
        },
        (),
    ),
    "trigger": (
        "Somebody but the guest triggered an event (a guest's SDEI_EVENT_SIGNAL is a `call`)",
        {
            "event": ref("event"),
            "by": _one_of("host", "interrupt"),
            "outcome": _one_of(
                "pending", "merged", "refused", about="`merged`: it was pending already, and is delivered once"
            ),
            "why": _or_null(text(), "why it was refused"),
        },
        (),
    ),
    "undelivered": (
        "An event stays pending after a trigger, or after something that might have let it through",
        {
            "event": ref("event"),
            "reason": text("`masked`, `off`, `disabled`, `running`, `behind` (another one comes first), `nobody`"),
            "why": text("the same as a sentence"),
        },
        (),
    ),
    "power": (
        "A vCPU's power state changed",
        {
            "from": _or_null(text(), "`off`, `on-pending`, `on`, `suspended`; null: not known"),
            "to": text(),
            "entry": ref("word", "where the vCPU begins"),
        },
        ("entry",),
    ),
    "counted": (
        "Calls whose answer was known before, and which are counted in place of being written one by one",
        {
            "function": text(),
            "id": ref("word"),
            "count": integer(1, about="how many since the last such record of this function and vCPU"),
            "since_ns": ref("ns", "host's clock at that one"),
        },
        (),
    ),
    "kernel": (
        "Another kernel has begun without a reset: kexec, a capture kernel",
        {"kernels": _or_null(integer(0), "which one since the reset")},
        (),
    ),
    "boot": (
        "The machine was reset",
        {
            "epoch": integer(0, about="which reset"),
            "counter_hz": integer(0, about="ticks of the guest's counter in a second from here on; 0: as before"),
        },
        ("epoch", "counter_hz"),
    ),
    "backend": (
        "A backend has begun to serve the guest",
        {
            "what": text("`started`, `took-over` (the one before died), `incoming`"),
            "pid": integer(0),
            "program": text("its version"),
        },
        ("pid", "program"),
    ),
    "migration": (
        "A step of a migration, a save or a snapshot",
        {"phase": text("`frozen`, `thawed`, `moved`, `arrived`"), "text": text()},
        ("text",),
    ),
    "notification": (
        "The guest was made to notice something other than by an event, or was not",
        {
            "kind": _one_of("abort", "interrupt", about="a synchronous external abort, or an SPI made pending"),
            "outcome": _one_of("made", "failed"),
            "intid": ref("word", "of the interrupt"),
            "address": ref("word", "that FAR has"),
            "elr": ref("word", "PC that the abort has interrupted"),
            "spsr": ref("word", "PSTATE that it has interrupted"),
            "why": text("what stood in the way"),
        },
        ("intid", "address", "elr", "spsr", "why"),
    ),
    "injection": (
        "An injection that somebody waits for and that will not be handled",
        {
            "event": ref("event"),
            "outcome": text("`failed`"),
            "ticket": text("what it is asked by"),
            "why": text("what has become of it"),
        },
        ("event", "ticket", "why"),
    ),
    "ras": (
        "A hardware error was reported to the guest (`ras_report`), or kept for its next boot (`ras_keep`)",
        {
            "source": text("name of the error source; of one that is kept BERT"),
            "notify": _one_of(
                "sdei", "sea", "interrupt", "external", "polled", "next-boot", about="how the guest is told"
            ),
            "bytes": integer(0, about="of the status block"),
            "severity": integer(0, 0xFFFFFFFF, "of that block: 0 recoverable, 1 fatal, 2 corrected, 3 informational"),
            "outcome": _one_of("reported", "kept", "refused"),
            "why": _or_null(text(), "why it was refused"),
        },
        ("why",),
    ),
    "misbehaved": (
        "A rule of a [firmware profile](firmware-profiles.md) acted: the firmware does wrong on purpose. What comes of "
        "it follows",
        {
            "profile": text("name of the firmware profile"),
            "rule": integer(1, about="number of its rule"),
            "does": text("what it does, in the rule's words"),
        },
        (),
    ),
    "firmware": (
        "From here on the firmware has this profile",
        {
            "profile": text("name of the firmware profile; `spec`: it does nothing wrong"),
            "rules": integer(0, about="how many rules it has"),
            "summary": text("what it does, in a line"),
        },
        ("rules", "summary"),
    ),
    "priorities": (
        "A CPU comes up, or another kernel begins on it, with interrupts active at its GIC interface: they were "
        "acknowledged and never ended. A second record, without `then`, says what the firmware has left of them",
        {
            "at": _one_of("cpu-on", "wake", "kernel", about="CPU_ON, the end of a power-down, a kernel by kexec"),
            "ap1r0": ref("word", "ICC_AP1R0_EL1, read at EL3"),
            "active": array(
                integer(0, 255),
                about="the priorities, as Non-secure software sees them; ICC_RPR_EL1 has the first",
            ),
            "then": _or_null(
                text(),
                "`ended`: by the firmware, at once; `kept`: it leaves them so (a [firmware profile]"
                "(firmware-profiles.md)); null: this is after that",
            ),
        },
        (),
    ),
    "reject": (
        "Something was not as it must be: a hostile or broken guest, or a service's fault",
        {"why": text()},
        ("why",),
    ),
    "unknown": ("A call that nobody serves", {"id": ref("word")}, ()),
    "note": ("Anything else", {"name": text("of what; more fields as it needs")}, ()),
    "dropped": (
        "Records are missing here: the reader or the disk was too slow, or the file is damaged",
        {"count": integer(0, about="how many"), "why": text()},
        ("why",),
    ),
    "ftrace": (
        "A line of the guest's own [ftrace](../howto/linux-ftrace.md); `n` is its line in that file",
        {
            "task": text("name of the task"),
            "pid": integer(0),
            "flags": text("latency flags, such as `d.h2.`; empty: none"),
            "event": text("tracepoint, probe, or `function`"),
            "text": text("the rest of the line"),
            "guest_ns": ref("ns", "its time by the guest's own clock"),
        },
        (),
    ),
}
"""Of each type: what it is, its fields beside the common ones, and which of these may be missing."""


def _of(kind: str) -> Schema:
    about, fields, optional = KINDS[kind]
    return _open({**COMMON, "type": {"const": kind}, **fields}, about, optional=optional)


SCHEMA: Final[Schema] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": f"A line of a qemu-sdei trace in JSON lines, version {VERSION}",
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"enum": ["trace", *KINDS]}},
    "allOf": [
        {"if": {"properties": {"type": {"const": kind}}}, "then": ref(name)}
        for kind, name in (("trace", "meta"), *((kind, kind) for kind in KINDS))
    ],
    "definitions": {**_WORDS, "meta": META, **{kind: _of(kind) for kind in KINDS}},
}


# ---- the page --------------------------------------------------------------------------------------------------------


def tables() -> str:
    """The tables of docs/reference/trace.md: the first line, what all records have, each kind."""
    out = ["## First line", "", *_table(META["properties"], ("monitor", "slots"))]
    out += ["", "## What all records have", "", *_table(COMMON, ())]
    out += ["", "## Kinds of records"]
    for kind, (about, fields, optional) in KINDS.items():
        out += ["", f"### {kind}", "", f"{about}.", "", *_table(fields, optional)]
    return "\n".join(out)


def _table(fields: dict[str, Schema], optional: tuple[str, ...]) -> list[str]:
    out = ["| field | form | what |", "|---|---|---|"]
    for name, form in fields.items():
        mark = "?" if name in optional else ""
        out.append(f"| `{name}`{mark} | {_form(form)} | {_about(form)} |")
    return out


def _about(form: Schema) -> str:
    words: str = form.get("description", "")
    if "$ref" in form:  # what stands around one says more
        words = _WORDS[form["$ref"].rpartition("/")[2]].get("description", "")
    return words.replace("|", "\\|")


def _form(form: dict[str, Any]) -> str:
    """The form of a field in a few words."""
    if "allOf" in form or "$ref" in form:
        return "number"
    if "const" in form:
        return f"`{form['const']}`"
    if "anyOf" in form:
        return ", ".join(map(_form, form["anyOf"]))
    if "enum" in form:
        return ", ".join(f"`{word}`" for word in form["enum"])
    if form["type"] == "array":
        inner = _form(form["items"])
        return f"list of {inner}s"
    names = {"integer": "number", "string": "text", "boolean": "true, false", "object": "object"}
    kinds = [form["type"]] if isinstance(form["type"], str) else form["type"]
    return ", ".join(names.get(kind, kind) for kind in kinds)
