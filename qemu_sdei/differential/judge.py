"""Where two transcripts of one sequence part, and whether they may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from qemu_sdei.differential import allowed
from qemu_sdei.differential.allowed import Allowed, Place
from qemu_sdei.differential.answers import BACK, CHECK, LEFT, Record, Transcript
from qemu_sdei.differential.sequence import Script, function_name

RESULTS: Final = 0b1110
"""x1 to x3 among the registers that a call changed: results of SMCCC 1.0 and later."""
INTERRUPTED: Final = 0x3C0
"""PSTATE.DAIF of what was interrupted: it is not said between which two instructions that is."""
DEAF: Final = "deaf"
LOST: Final = "lost"
SILENT: Final = "silent"


@dataclass(frozen=True)
class Difference:
    """Two answers that are not the same.

    Attributes:
        place: the step and the CPU.
        ours, theirs: the records; None: there is none.
        ours_end, theirs_end: why a side has none any more.
    """

    place: Place
    ours: Record | None
    theirs: Record | None
    ours_end: str = ""
    theirs_end: str = ""


@dataclass(frozen=True)
class Verdict:
    """What two transcripts of `script` come to."""

    script: Script
    ours: Transcript
    theirs: Transcript
    first: Difference | None
    """The first difference that nothing allows."""
    allowed: tuple[Allowed, ...] = ()
    """Reasons of those that are."""

    @property
    def ran(self) -> frozenset[int]:
        """Programs that a handler has run, on either side."""
        return frozenset(r.b >> 32 for side in (self.ours, self.theirs) for r in side.records if r.kind == "h")

    @property
    def symptom(self) -> tuple[object, ...]:
        """What stays the same while a sequence is made shorter, and is not the same for two faults, as far as one can
        tell from outside.
        """
        first = self.first
        if first is None:
            return ()
        if first.ours_end or first.theirs_end:
            return (SILENT, bool(first.ours_end), bool(first.theirs_end))
        if _lost(self.ours) != _lost(self.theirs):
            return (LOST,)
        if self.ours.health() != self.theirs.health() or any(r is not None and r.kind in "ip" for r in _both(first)):
            return (DEAF,)
        return (*_described(self.script, first.ours), *_described(self.script, first.theirs))


def _both(difference: Difference) -> tuple[Record | None, Record | None]:
    return difference.ours, difference.theirs


def _described(script: Script, record: Record | None) -> tuple[object, ...]:
    if record is None:
        return ("nothing",)
    ops = script.ops()
    what = function_name(ops[record.op].function) if record.kind == "c" and record.op < len(ops) else record.kind
    return (what, *compared(record)[2:])


def compared(record: Record) -> tuple[object, ...]:
    """What of a record must be the same on both sides."""
    kind, a, b, c = record.kind, record.a, record.b, record.c
    if kind == "c":
        return kind, record.op, a, b & ~RESULTS
    if kind == "h":
        return kind, 0, a, b & ~INTERRUPTED, c
    if kind in "knp":
        return kind, 0, a, b
    if kind == "z":
        return kind, 0, c
    if kind in "iqj":
        return kind, record.op, a
    if kind == "x":
        return kind, 0, a, b, c
    return kind, record.op


def judge(script: Script, ours: Transcript, theirs: Transcript) -> Verdict:
    """Compare them, step by step, of each step the CPU first that makes it."""
    reasons: list[Allowed] = []
    apart = False
    for step in (*range(len(script.steps)), LEFT, BACK, CHECK):
        if apart and (step != CHECK or _faulted(ours) or _faulted(theirs)):
            continue
        for difference in _differences(script, step, ours, theirs):
            reason = None
            if not difference.ours_end and not difference.theirs_end:
                reason = allowed.reason(script, ours, difference.place, difference.ours, difference.theirs)
            if reason is None:
                return Verdict(script, ours, theirs, difference, tuple(dict.fromkeys(reasons)))
            reasons.append(reason)
            if reason.parts and step != CHECK:
                apart = True
                break
    return Verdict(script, ours, theirs, None, tuple(dict.fromkeys(reasons)))


def _lost(transcript: Transcript) -> bool:
    return any(record.kind == "w" for record in transcript.records)


def _faulted(transcript: Transcript) -> bool:
    """The guest did, or lost a CPU: its own doing, where the firmware may have taken the address that it gave."""
    return any(record.kind in "xw" for record in transcript.records)


def _differences(script: Script, step: int, ours: Transcript, theirs: Transcript) -> Iterator[Difference]:
    a, b = ours.at(step), theirs.at(step)
    own = script.steps[step].cpu if step < len(script.steps) else -1
    for cpu in sorted(a.keys() | b.keys(), key=lambda cpu: (cpu != own, cpu)):
        pairs = zip_longest(_ordered(a.get(cpu, []), step), _ordered(b.get(cpu, []), step))
        for left, right in pairs:
            if left is not None and right is not None and compared(left) == compared(right):
                continue
            ended = (ours.crash if left is None else "", theirs.crash if right is None else "")
            yield Difference(Place(step, cpu), left, right, *ended)
            if left is None or right is None:
                break
    # A side that ended here, where the other has nothing to say either.
    if step == CHECK and (ours.crash != "") != (theirs.crash != ""):
        yield Difference(Place(step, 0), None, None, ours.crash, theirs.crash)


def _ordered(records: list[Record], step: int) -> list[Record]:
    """A handler that a call lets in may begin at the call's return, or a few instructions later: the step's own answer
    is put behind it.
    """
    return sorted(records, key=lambda record: record.kind == "c" and record.op == step)
