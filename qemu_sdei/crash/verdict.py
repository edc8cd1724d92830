"""What a crash has come to: by the stages that were seen, the CPUs that run, and what `explain` says of the others.

Nothing is expected of a cell: a verdict has no other source than what its guest has shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from qemu_sdei.explain.explanation import Explanation
from qemu_sdei.explain.finding import Finding, Weight
from qemu_sdei.explain.picture import Record
from qemu_sdei.explain.words import answer, called
from qemu_sdei.guest.kdump_stages import Stage

_CLAUSE: Final = re.compile(r"(?:DEN|IHI )\d{4}[^;,:]*")
_TELLING: Final = ("CPU_", "PSCI_", "SDEI_", "SYSTEM_")
"""How names of calls begin that say how far a CPU came. Random numbers and stolen time are asked for at any moment."""


class Result(Enum):
    """What has become of a cell. The value is its word in tables and JSON."""

    DUMPED = "dumped"
    """The vmcore is here, and the capture kernel had all CPUs that it wanted."""
    FEWER = "fewer CPUs"
    """The vmcore is here; some CPU did not come back."""
    WEDGED = "wedged"
    """There is no vmcore, and `explain` says why."""
    UNEXPLAINED = "not explained"
    """There is no vmcore, and nobody can say why."""
    FAILED = "not run"
    """The guest could not be started, or did not crash."""
    MISSING = "not built"
    """There is no such kernel here."""

    @property
    def judged(self) -> bool:
        """Whether it says what kernel and firmware do with one another."""
        return self in (Result.DUMPED, Result.FEWER, Result.WEDGED)


@dataclass(frozen=True)
class LostCpu:
    """A CPU that the capture kernel wanted and does not have.

    Attributes:
        vcpu: its number.
        why: in a line.
        rule: the rule of `explain` that says so; "": none does.
        clause: of the specification, as far as the rule names one.
        call, answered: its last call of PSCI or SDEI, and what that was answered.
    """

    vcpu: int
    why: str
    rule: str = ""
    clause: str = ""
    call: str = ""
    answered: str = ""


@dataclass(frozen=True)
class Verdict:
    """Of one crash.

    Attributes:
        result: in a word.
        stage: the last stage that was reached; None: none was.
        seconds: from the crash to that stage.
        stages: all that were reached, and when, in seconds after the crash.
        vcpus: those that the capture kernel runs on, the first one first; empty: it has not said so.
        lost: those that it wanted and does not have.
        reason: what it did not get over, in a line; "": it came to its end.
        todo: what has to happen by the specification, as `explain` says.
        acted: rules of the firmware profile that acted, by number.
        took: seconds for all of the cell.
    """

    result: Result
    stage: Stage | None = None
    seconds: float = 0.0
    stages: tuple[tuple[Stage, float], ...] = ()
    vcpus: tuple[int, ...] = ()
    lost: tuple[LostCpu, ...] = ()
    reason: str = ""
    todo: str = ""
    acted: tuple[int, ...] = ()
    took: float = 0.0

    @property
    def same(self) -> tuple[object, ...]:
        """What two runs of a cell must agree in."""
        return self.result, self.stage, self.vcpus, tuple((cpu.vcpu, cpu.rule) for cpu in self.lost)


@dataclass(frozen=True)
class Seen:
    """What was seen of one crash.

    Attributes:
        stages: those that were reached, and when.
        vcpus: those that the capture kernel says it runs on; None: it says nothing.
        wanted: how many it was to have.
        explanation: of the guest, when it had come as far as it came; None: it could not be had.
        error: why no further stage came; "": all came.
        acted: rules of the firmware profile that acted.
    """

    stages: tuple[tuple[Stage, float], ...]
    vcpus: tuple[int, ...] | None
    wanted: int
    explanation: Explanation | None
    error: str = ""
    acted: tuple[int, ...] = ()


def judge(seen: Seen) -> Verdict:
    """The verdict on what was seen."""
    reached = dict(seen.stages)
    lost = lost_cpus(seen.explanation, seen.vcpus, seen.wanted)
    blocking = blocks(seen.explanation, seen.vcpus)
    if Stage.CRASH not in reached:
        result = Result.FAILED
    elif Stage.VMCORE in reached:
        result = Result.FEWER if lost else Result.DUMPED
    else:
        result = Result.WEDGED if blocking is not None else Result.UNEXPLAINED
    last = max(reached, key=list(Stage).index, default=None)
    reason = "" if last is Stage.OFF else seen.error
    if blocking is not None and last is not Stage.OFF:
        reason = f"{seen.error}: {blocking.title}"
    return Verdict(
        result,
        last,
        reached[last] if last is not None else 0.0,
        seen.stages,
        seen.vcpus or (),
        lost,
        reason,
        "" if blocking is None or last is Stage.OFF else blocking.todo,
        seen.acted,
    )


def blocks(explanation: Explanation | None, vcpus: Sequence[int] | None) -> Finding | None:
    """The heaviest finding that says why the capture kernel does not go on: one about a CPU that it runs on. What else
    is wrong does not hold it up: a CPU that cannot be started is one less.
    """
    if explanation is None:
        return None
    used = set(vcpus or ()) | set(started(explanation))
    return next(
        (
            each
            for each in explanation.findings
            if each.weight is Weight.ERROR and (about(each) & used or not about(each))
        ),
        None,
    )


def about(finding: Finding) -> set[int]:
    """The vCPUs that a finding is about: the last word of its keys."""
    last = (key.rpartition(" ")[2] for key in finding.about)
    return {int(word) for word in last if word.isdigit()}


def started(explanation: Explanation) -> list[int]:
    """The vCPUs that the kernel which runs now has, by the trace: the one that it began on, and those that came up
    since.
    """
    history = explanation.history
    began = history.kernel_began()
    if began is None:
        return []
    up = [
        record["vcpu"]
        for record in history.records
        if record.get("type") == "power" and record.get("to") == "on" and record["n"] > began["n"]
    ]
    return list(dict.fromkeys([began["vcpu"], *up]))


def lost_cpus(explanation: Explanation | None, vcpus: Sequence[int] | None, wanted: int) -> tuple[LostCpu, ...]:
    """The CPUs that the capture kernel wanted and does not have, and why."""
    if explanation is None or wanted < 2:
        return ()
    blocked = {vcpu for each in explanation.findings if each.weight is Weight.ERROR for vcpu in about(each)}
    has = set(started(explanation)) - blocked if vcpus is None else set(vcpus)
    return tuple(_lost(explanation, vcpu.index) for vcpu in explanation.picture.vcpus if vcpu.index not in has)


def _lost(explanation: Explanation, vcpu: int) -> LostCpu:
    history = explanation.history
    call = next((each for each in history.calls(vcpu) if str(each.get("function")).startswith(_TELLING)), None)
    asked = _asked_for(explanation, vcpu)
    found = next((each for each in explanation.findings if vcpu in about(each)), None)
    if asked is None and vcpu not in started(explanation):
        lost = LostCpu(vcpu, "the capture kernel has not come to ask for it")
    elif found is None:
        lost = LostCpu(vcpu, "no rule says why" if asked is None else f"CPU_ON for it was answered {answer(asked)}")
    else:
        clause = next((match[0].strip() for match in map(_CLAUSE.match, found.references) if match), "")
        lost = LostCpu(vcpu, found.title, found.rule, clause)
    return lost if call is None else replace(lost, call=called(call), answered=answer(call))


def _asked_for(explanation: Explanation, vcpu: int) -> Record | None:
    """The capture kernel's newest CPU_ON for a vCPU; None: there was none."""
    picture, history = explanation.picture, explanation.history
    began = history.kernel_began()
    affinity = next(each.affinity for each in picture.vcpus if each.index == vcpu)
    for call in history.calls(None, "CPU_ON"):
        if began is not None and call["n"] < began["n"]:
            break
        if call.get("args", {}).get("target") == affinity:
            return call
    return None
