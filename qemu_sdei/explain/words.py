"""How things are said: times, calls, clauses."""

from __future__ import annotations

from typing import Any, Final

from qemu_sdei import durations
from qemu_sdei.durations import duration

CLAUSES: Final = {
    name: f"DEN0054 5.1.{number}"
    for number, name in enumerate(
        (
            *("SDEI_VERSION", "SDEI_EVENT_REGISTER", "SDEI_EVENT_ENABLE", "SDEI_EVENT_DISABLE", "SDEI_EVENT_CONTEXT"),
            *("SDEI_EVENT_COMPLETE", "SDEI_EVENT_COMPLETE_AND_RESUME", "SDEI_EVENT_UNREGISTER", "SDEI_EVENT_STATUS"),
            *("SDEI_EVENT_GET_INFO", "SDEI_EVENT_ROUTING_SET", "SDEI_PE_MASK", "SDEI_PE_UNMASK"),
            *("SDEI_INTERRUPT_BIND", "SDEI_INTERRUPT_RELEASE", "SDEI_EVENT_SIGNAL", "SDEI_FEATURES"),
            *("SDEI_PRIVATE_RESET", "SDEI_SHARED_RESET"),
        ),
        1,
    )
} | {
    "CPU_SUSPEND": "DEN0022 5.1.2",
    "CPU_OFF": "DEN0022 5.1.3",
    "CPU_ON": "DEN0022 5.1.4",
    "AFFINITY_INFO": "DEN0022 5.1.5",
    "SYSTEM_SUSPEND": "DEN0022 5.1.19",
}
"""Where a call is specified."""
UNTIL_COMPLETE: Final = (
    "SDEI_EVENT_COMPLETE (DEN0054 5.1.6) or SDEI_EVENT_COMPLETE_AND_RESUME (5.1.7) in the handler, on vCPU {}"
)


def ago(ns: int | None, before: int | None = None) -> str:
    """How long ago: "3.2 s ago"; of what is older than all records, which go back `before` nanoseconds, "more than 5 s
    ago".
    """
    if ns is not None:
        return durations.ago(ns)
    return "at a time that the trace does not tell" if before is None else f"more than {duration(before)} ago"


def lasting(ns: int | None, before: int | None = None) -> str:
    """For how long: "3.2 s", "more than 5 s" (as `ago`)."""
    if ns is not None:
        return duration(ns)
    return "a time that the trace does not tell" if before is None else f"more than {duration(before)}"


def called(record: dict[str, Any]) -> str:
    """A call with its arguments: "CPU_ON(target=0x1, entry=0x40201000)"."""
    arguments = record.get("args", {})
    shown = ", ".join(f"{name}={value:#x}" for name, value in arguments.items() if isinstance(value, int))
    return f"{record.get('function', '?')}({shown})"


def answer(record: dict[str, Any]) -> str:
    """What a call was answered: "DENIED", "0x3", "it did not return"."""
    if record.get("result_name"):
        return str(record["result_name"])
    result = record.get("result")
    if result is None:
        return {
            "handler": "a handler began",
            "parks": "the vCPU went off",
            "resumes": "it went on elsewhere",
            "starts": "the vCPU was sent elsewhere",
            "operations": "not answered yet",
        }.get(str(record.get("then")), "no answer yet" if not record.get("answered", True) else "no result")
    return f"{result:#x}" if result >= 0 else str(result)


def refused(calls: list[dict[str, Any]], most: int = 3) -> tuple[str, ...]:
    """Refused calls as evidence, each kind once: "SDEI_EVENT_REGISTER(event=0x0, ...) on vCPU 1: DENIED, 3 times"."""
    counts: dict[str, int] = {}
    for call in calls:
        line = f"{called(call)} on vCPU {call.get('vcpu')}: {answer(call)}"
        counts[line] = counts.get(line, 0) + 1
    return tuple(f"{line}, {n} times" if n > 1 else line for line, n in list(counts.items())[:most])


def joined(words: list[str]) -> str:
    """Words as a list in a sentence: "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def numbers(indexes: list[int]) -> str:
    """[0, 1, 2, 5] as "0-2, 5"."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
