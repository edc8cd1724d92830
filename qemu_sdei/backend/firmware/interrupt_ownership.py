"""Brings the GIC in line with what the SDEI core wants of bound interrupts.

Micro-operations are done by the monitor some time after the answer that asked for them, so two CPUs' operations can
overtake each other. Of SPIs, which any CPU may touch, only one CPU's are under way at any time: those of the
*operator*, whose exchange goes on (REPOST) until nothing is left to do. What other CPUs' calls want meanwhile is left
to it, and they wait, as they would for a lock in a firmware of C: when a call returns, the GIC has been told. A PPI is
touched by its own CPU only, whose exchanges are in order by themselves.

All progress is data and part of the firmware's state: a job can be written down between any two of its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qemu_sdei.backend.firmware.gic import Claim, GicOwner
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor.layout import MAX_OPS, SysReg
from qemu_sdei.monitor.ops import MicroOp, OpResult, read_sysreg
from qemu_sdei.monitor.ops import check as check_op
from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.sdei.interrupts import Wanted

NOBODY: Final = -1
_WAIT: Final = read_sysreg(SysReg.CNTPCT_EL0)
"""An operation that does nothing: its end is another chance to look."""
_WORD_MAX: Final = (1 << 64) - 1
_KEYS: Final = frozenset(("owned", "spis", "settling", "operator", "quieting", "jobs"))
_JOB: Final = frozenset(("pe", "flags", "ops", "todo", "is_call", "waits", "registering", "refused", "looking"))


@dataclass(slots=True)
class Job:
    """An exchange that does micro-operations for the GIC before its answer is complete."""

    flags: int
    """What the answer is to say when they are done."""
    ops: list[MicroOp]
    """Operations that go with the answer."""
    todo: list[Claim] = field(default_factory=list)
    """PPIs to look after."""
    is_call: bool = False
    registering: Claim | None = None
    """The exchange is an EVENT_REGISTER of this interrupt, which can still be refused."""
    waits: list[int] = field(default_factory=list)
    """SPIs that must have been looked after, by whomever, before the answer."""
    refused: bool = False
    looking: Claim | None = None
    """Under way: the first half of taking this one over."""


class Ownership:
    """Which interrupts are the firmware's, and which exchanges are busy with them.

    Attributes:
        gic: what is owned, and how it was before.
        jobs: exchanges that wait for micro-operations, by PE.
        quieting: SPI that a PE took and is about to end, by PE.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._settling = dispatcher.settling
        self.gic = GicOwner()
        self.jobs: dict[int, Job] = {}
        self.quieting: dict[int, int] = {}
        self._spis: list[int] = []
        """SPIs that the operator is to look after."""
        self._operator = NOBODY

    def reset(self) -> None:
        """The machine was reset, the GIC with it."""
        self.gic.reset()
        self.jobs.clear()
        self.quieting.clear()
        self._spis.clear()
        self._settling.clear()
        self._operator = NOBODY

    def forget(self, pe: int) -> None:
        """A CPU has lost its exchange: it was reset, or is broken."""
        self.jobs.pop(pe, None)
        self.quieting.pop(pe, None)
        if self._operator == pe:
            self._operator = NOBODY
            self._settling.clear()

    def leave(self, claims: Sequence[Claim]) -> None:
        """Have the next operator see to the SPIs among `claims`."""
        for intid, owner in claims:
            if owner == -1 and intid not in self._spis:
                self._spis.append(intid)

    def note(self, job: Job, claims: Sequence[Claim]) -> None:
        """`claims` may want something: PPIs are the job's, SPIs the operator's."""
        for claim in claims:
            intid, owner = claim
            if owner != -1:
                if claim not in job.todo:
                    job.todo.append(claim)
            elif intid not in self._spis:
                self._spis.append(intid)
            if owner == -1 and job.is_call:
                job.waits.append(intid)

    def advance(self, pe: int, job: Job, found: Sequence[OpResult]) -> list[MicroOp]:
        """What is to be done next, before `job` goes on; nothing: it is complete. `found`: results of what was done."""
        if self._spis and self._operator == NOBODY:
            self._operator = pe
        looked, job.looking = job.looking, None
        if looked is not None and self._dispatcher.wanted(*looked) is not Wanted.FREE and not self.gic.owns(*looked):
            if job.registering == looked and self.gic.active(looked[0], found):
                job.refused = True
                self._dispatcher.refuse(*looked)
            else:
                ops = self.gic.take(*looked, found)
                if self._must_wait(job, looked, ops):
                    return ops
        while (claim := self._next(pe, job)) is not None:
            ops = self._step(job, claim)
            if ops and self._must_wait(job, claim, ops):
                return ops
            if not ops:
                self._done(job, claim)
        if self._operator == pe:
            self._operator = NOBODY
        quieting = self.quieting.values()
        job.waits = [intid for intid in job.waits if intid in self._spis or intid in quieting]
        return [_WAIT] if job.waits else []

    def _next(self, pe: int, job: Job) -> Claim | None:
        if job.todo:
            return job.todo[0]
        return (self._spis[0], -1) if self._operator == pe and self._spis else None

    def _done(self, job: Job, claim: Claim) -> None:
        if claim[1] == -1:
            self._spis.remove(claim[0])
            self._settling.discard(claim[0])
        else:
            job.todo.remove(claim)

    def _step(self, job: Job, claim: Claim) -> list[MicroOp]:
        """What one interrupt needs now."""
        if claim[0] in self.quieting.values() and claim[1] == -1:
            return []  # the CPU that took it comes back to it
        wanted = self._dispatcher.wanted(*claim)
        if wanted is not Wanted.HOLD and claim[1] == -1 and self.gic.owns(*claim):
            self._settling.add(claim[0])
        if wanted is Wanted.FREE:
            return self.gic.give_back(*claim)
        if not self.gic.owns(*claim):
            job.looking = claim
            return self.gic.look(*claim)
        return self.gic.listen(*claim) if wanted is Wanted.LISTEN else []

    def _must_wait(self, job: Job, claim: Claim, ops: list[MicroOp]) -> bool:
        """What is done to a PPI can go with the answer, if there is room."""
        if job.looking is not None or claim[1] == -1 or len(job.ops) + len(ops) > MAX_OPS:
            return True
        job.ops += ops
        return False

    def snapshot(self) -> dict[str, Any]:
        """State for the journal and for migration."""
        return {
            "owned": self.gic.snapshot(),
            "spis": list(self._spis),
            "settling": sorted(self._settling),
            "operator": self._operator,
            "quieting": [[pe, intid] for pe, intid in self.quieting.items()],
            "jobs": [
                {
                    "pe": pe,
                    "flags": job.flags,
                    "ops": [[op.code, op.argument, op.value] for op in job.ops],
                    "todo": [list(claim) for claim in job.todo],
                    "is_call": job.is_call,
                    "waits": list(job.waits),
                    "registering": list(job.registering or ()),
                    "refused": job.refused,
                    "looking": list(job.looking or ()),
                }
                for pe, job in self.jobs.items()
            ],
        }

    def restore(self, state: Any, nr_cpus: int) -> None:
        """Take over a state.

        Raises:
            ProtocolError: it is damaged.
        """
        self.reset()
        _keys(state, _KEYS)
        self.gic.restore(state["owned"], nr_cpus)
        self._spis = _numbers(state["spis"], 32, 1019)
        self._settling.update(_numbers(state["settling"], 32, 1019))
        self._operator = _numbers([state["operator"]], NOBODY, nr_cpus - 1)[0]
        for pair in _list(state["quieting"]):
            pe, intid = _numbers(pair, 0, 1019, 2)
            self.quieting[_numbers([pe], 0, nr_cpus - 1)[0]] = _numbers([intid], 32, 1019)[0]
        for entry in _list(state["jobs"]):
            _keys(entry, _JOB)
            pe = _numbers([entry["pe"]], 0, nr_cpus - 1)[0]
            if type(entry["refused"]) is not bool or type(entry["is_call"]) is not bool or len(entry["ops"]) > MAX_OPS:
                raise ProtocolError("gic state: a job that cannot be")
            self.jobs[pe] = Job(
                flags=_numbers([entry["flags"]], 0, 0xFFFF)[0],
                ops=[_operation(op) for op in _list(entry["ops"])],
                todo=[_claim(claim, nr_cpus) for claim in _list(entry["todo"])],
                is_call=entry["is_call"],
                waits=_numbers(entry["waits"], 32, 1019),
                registering=_claim(entry["registering"], nr_cpus) if _list(entry["registering"]) else None,
                refused=entry["refused"],
                looking=_claim(entry["looking"], nr_cpus) if _list(entry["looking"]) else None,
            )
        if self._operator != NOBODY and self._operator not in self.jobs:
            raise ProtocolError("gic state: the operator does nothing")


def _keys(value: Any, keys: frozenset[str]) -> None:
    if not isinstance(value, dict) or value.keys() != keys:
        raise ProtocolError(f"gic state: an object with {', '.join(sorted(keys))} is missing")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ProtocolError("gic state: a list is missing")
    return value


def _numbers(value: Any, low: int, high: int, count: int | None = None) -> list[int]:
    if not isinstance(value, list) or not all(type(n) is int and low <= n <= high for n in value):
        raise ProtocolError(f"gic state: numbers of {low} to {high:#x} are missing")
    if count is not None and len(value) != count:
        raise ProtocolError(f"gic state: {count} numbers are missing")
    return list(value)


def _operation(value: Any) -> MicroOp:
    op = MicroOp(*_numbers(value, 0, _WORD_MAX, 3))
    try:
        check_op(op)
    except ValueError as error:
        raise ProtocolError(f"gic state: {error}") from None
    return op


def _claim(value: Any, nr_cpus: int) -> Claim:
    intid, pe = _numbers(value, -1, 1019, 2)
    if intid < 16 or not -1 <= pe < nr_cpus or (pe == -1) is (intid < 32):
        raise ProtocolError("gic state: no interrupt that can be owned")
    return intid, pe
