"""A crash matrix as JSON, and the form of that JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.crash.cells import Axes, Capture, Cell
from qemu_sdei.crash.verdict import LostCpu, Result, Verdict
from qemu_sdei.guest.kdump_stages import Stage
from qemu_sdei.json_schema import Schema, array, boolean, integer, only, record, text

VERSION: Final = 1


@dataclass(frozen=True)
class CellResult:
    """A cell, and what became of it in each round."""

    cell: Cell
    rounds: tuple[Verdict, ...]

    @property
    def agrees(self) -> bool:
        """All rounds came to the same."""
        return len({verdict.same for verdict in self.rounds}) < 2

    @property
    def verdict(self) -> Verdict:
        """What most rounds came to; the first of these."""
        most = Counter(verdict.same for verdict in self.rounds).most_common(1)[0][0]
        return next(verdict for verdict in self.rounds if verdict.same == most)


@dataclass
class Matrix:
    """All of it.

    Attributes:
        axes: what it is made of.
        facts: of program and machine: "program", "qemu", "date", "vcpus", "memory".
        summaries: what each firmware profile is, by its name.
        releases: of each kernel, by its name.
        results: the cells, in the order of the axes.
        seconds: for all of it.
    """

    axes: Axes
    facts: dict[str, Any]
    summaries: dict[str, str]
    releases: dict[str, str] = field(default_factory=dict)
    results: list[CellResult] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def judged(self) -> bool:
        """Every cell that there is a kernel for could be judged."""
        verdicts = [verdict for result in self.results for verdict in result.rounds]
        return all(verdict.result.judged or verdict.result is Result.MISSING for verdict in verdicts)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        counts = Counter(result.verdict.result.value for result in self.results)
        return {
            "version": VERSION,
            **self.facts,
            "seconds": round(self.seconds, 1),
            "endings": [{"name": each.name, "sentence": each.sentence} for each in self.axes.endings],
            "firmware": [{"name": name, "summary": self.summaries.get(name, "")} for name in self.axes.firmware],
            "kernels": [
                {"name": each.name, "release": self.releases.get(each.name), "missing": each.missing or None}
                for each in self.axes.kernels
            ],
            "counts": {result.value: counts[result.value] for result in Result},
            "unsteady": sum(not result.agrees for result in self.results),
            "cells": [_cell(result) for result in self.results],
        }


def _cell(result: CellResult) -> dict[str, Any]:
    cell = result.cell
    return {
        "kernel": cell.kernel.name,
        "capture": cell.capture.value,
        "firmware": cell.firmware,
        "ending": cell.ending.name,
        "agrees": result.agrees,
        **_verdict(result.verdict),
        "rounds": [_verdict(verdict) for verdict in result.rounds],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "result": verdict.result.value,
        "stage": None if verdict.stage is None else verdict.stage.value,
        "seconds": round(verdict.seconds, 2),
        "stages": {stage.value: round(seconds, 2) for stage, seconds in verdict.stages},
        "vcpus": list(verdict.vcpus),
        "lost": [_lost(cpu) for cpu in verdict.lost],
        "reason": verdict.reason or None,
        "todo": verdict.todo or None,
        "acted": list(verdict.acted),
        "took": round(verdict.took, 2),
    }


def _lost(cpu: LostCpu) -> dict[str, Any]:
    return {
        "vcpu": cpu.vcpu,
        "why": cpu.why,
        "rule": cpu.rule or None,
        "clause": cpu.clause or None,
        "last_call": cpu.call or None,
        "answered": cpu.answered or None,
    }


def _or_null(schema: Schema, about: str) -> Schema:
    return {**schema, "type": [schema["type"], "null"], "description": about}


_TEXT: Final = text()
_VCPU: Final = integer(0)
_SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
_LOST: Final = record(
    {
        "vcpu": _VCPU,
        "why": text("in a line"),
        "rule": _or_null(_TEXT, "the rule of `explain` that says so; null: none does"),
        "clause": _or_null(_TEXT, "of the specification"),
        "last_call": _or_null(_TEXT, "its last call of PSCI or SDEI"),
        "answered": _or_null(_TEXT, "what that was answered"),
    },
    "a vCPU that the capture kernel wanted and does not have",
)
_OF_ROUND: Final[dict[str, Schema]] = {
    "result": text(
        "dumped: the vmcore is here, and the capture kernel had all CPUs that it wanted; fewer CPUs: the vmcore is "
        "here; wedged: there is none, and `explain` says why; not explained: nobody can say; not run: no guest, or no "
        "crash; not built: no such kernel here",
        enum=[result.value for result in Result],
    ),
    "stage": {
        "description": "the last that was reached; null: none",
        "type": ["string", "null"],
        "enum": [*(stage.value for stage in Stage), None],
    },
    "seconds": {**_SECONDS, "description": "from the crash to that stage"},
    "stages": {
        "description": "those that were reached, in seconds after the crash",
        "type": "object",
        "additionalProperties": False,
        "properties": {stage.value: _SECONDS for stage in Stage},
    },
    "vcpus": array(_VCPU, about="those that the capture kernel says it runs on; empty: it has not come to say so"),
    "lost": array(_LOST),
    "reason": _or_null(_TEXT, "what it did not get over; null: it came to its end"),
    "todo": _or_null(_TEXT, "what has to happen, with the clause"),
    "acted": array(integer(1), about="rules of the firmware profile that acted, by number"),
    "took": {**_SECONDS, "description": "seconds for all of the cell"},
}
SCHEMA: Final[dict[str, Any]] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": f"What qemu-sdei crash matrix --json prints, version {VERSION}",
    **record(
        {
            "version": only(VERSION),
            "program": text("its version"),
            "qemu": text("version of QEMU"),
            "date": text("when it was run, in UTC"),
            "vcpus": integer(1, about="of each guest"),
            "memory": text("of each guest"),
            "seconds": {**_SECONDS, "description": "for all of it"},
            "endings": array(record({"name": _TEXT, "sentence": text("what a stopped CPU does")})),
            "firmware": array(record({"name": text("profile"), "summary": _TEXT})),
            "kernels": array(
                record(
                    {
                        "name": _TEXT,
                        "release": _or_null(_TEXT, "as `uname -r` says; null: it was not booted"),
                        "missing": _or_null(_TEXT, "why there is none here; null: there is"),
                    }
                )
            ),
            "counts": record({result.value: integer(0) for result in Result}, "cells, by result"),
            "unsteady": integer(0, about="cells that disagree with themselves"),
            "cells": array(
                record(
                    {
                        "kernel": _TEXT,
                        "capture": text("up: one vCPU; smp: all", enum=[each.value for each in Capture]),
                        "firmware": _TEXT,
                        "ending": _TEXT,
                        "agrees": boolean("all rounds came to the same"),
                        **_OF_ROUND,
                        "rounds": array(record(_OF_ROUND), 1),
                    },
                    "its verdict is that of most rounds",
                )
            ),
        }
    ),
}


def ordered(results: Sequence[CellResult], axes: Axes) -> list[CellResult]:
    """Cells in the order of the axes, however they came."""
    place = {cell: n for n, cell in enumerate(axes)}
    return sorted(results, key=lambda result: place[result.cell])
