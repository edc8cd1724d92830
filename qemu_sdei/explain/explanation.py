"""An explanation: everything that can be said of a guest, for people (`lines.py`) and programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qemu_sdei.explain.delivery import Wait, waiting
from qemu_sdei.explain.finding import Finding, Weight, by_weight
from qemu_sdei.explain.history import History
from qemu_sdei.explain.picture import Picture, Vcpu, Where
from qemu_sdei.explain.refusals import Refusal, refusals
from qemu_sdei.explain.rules import RULES
from qemu_sdei.explain.words import called

VERSION: Final = 1
"""Of the JSON form."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is wrong with a guest.

    Attributes:
        picture: the present state of the guest.
        history: what happened before.
        findings: situations that were recognised, the worst first.
        waits: pending events, and why they wait.
        refusals: recent calls that were refused, and why.
    """

    picture: Picture
    history: History
    findings: tuple[Finding, ...]
    waits: tuple[Wait, ...]
    refusals: tuple[Refusal, ...]

    @property
    def wedged(self) -> bool:
        """True: a finding is a reason for which the guest hangs."""
        return any(finding.weight is Weight.ERROR for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """The explanation as a dictionary for JSON (`explanation_schema.py`)."""
        picture = self.picture
        return {
            "version": VERSION,
            "guest": picture.guest,
            "epoch": picture.epoch,
            "kernels": picture.kernels,
            "known_by": picture.known_by or None,
            "backend": picture.backend or None,
            "qemu": picture.qemu or None,
            "paused": picture.paused or None,
            "misbehaves": picture.misbehaves or None,
            "records": len(picture.records),
            "lost": picture.lost,
            "reach_ns": self.history.reach(),
            "findings": [finding.document() for finding in self.findings],
            "events": [_event(self, event.number, instance) for event, instance in picture.instances()
                       if instance.pending or instance.running],
            "refusals": [_refusal(self, refusal) for refusal in self.refusals],
            "vcpus": [_vcpu(self, vcpu) for vcpu in picture.vcpus],
            "errors": [
                {
                    "event": block.event,
                    "source": block.source,
                    "address": block.address,
                    "status": block.status,
                    "severity": block.severity,
                    "acknowledged": block.acknowledged,
                }
                for block in picture.errors
            ],
        }  # fmt: skip


def explain(picture: Picture) -> Explanation:
    """What is to be said of a guest."""
    history = History(picture)
    found = [finding for rule in RULES for finding in rule(picture, history)]
    return Explanation(
        picture, history, tuple(by_weight(found)), tuple(waiting(picture)), tuple(refusals(picture, history))
    )


def _event(explanation: Explanation, number: int, instance: Any) -> dict[str, Any]:
    history = explanation.history
    vcpu = instance.vcpu if instance.vcpu is not None else instance.running_on
    wait = next((w for w in explanation.waits if w.instance is instance), None)
    return {
        "event": number,
        "name": explanation.picture.event(number).name,
        "vcpu": instance.vcpu,
        "state": instance.state,
        "since_ns": history.state_age(number, vcpu),
        "running_on": instance.running_on if instance.running else None,
        "entered_ns": history.age(history.entered(number, vcpu)) if instance.running else None,
        "pending": instance.pending,
        "triggered_ns": history.age(history.triggered(number, instance.vcpu)) if instance.pending else None,
        "reason": None if wait is None else wait.word,
        "why": None if wait is None else wait.why,
        "todo": None if wait is None else wait.todo,
    }


def _refusal(explanation: Explanation, refusal: Refusal) -> dict[str, Any]:
    call = refusal.call
    return {
        "function": call.get("function"),
        "call": called(call),
        "vcpu": call.get("vcpu"),
        "result": call.get("result"),
        "result_name": call.get("result_name"),
        "pc": call.get("pc"),
        "count": refusal.count,
        "age_ns": explanation.history.age(call),
        "why": refusal.why,
    }


def _vcpu(explanation: Explanation, vcpu: Vcpu) -> dict[str, Any]:
    history = explanation.history
    call = history.last_call(vcpu.index)
    return {
        "vcpu": vcpu.index,
        "affinity": vcpu.affinity,
        "power": vcpu.power,
        "masked": vcpu.masked,
        "running": list(vcpu.running),
        "sleeps": vcpu.sleeps,
        "came": None if not vcpu.asked else not vcpu.missing,
        "silent_since": vcpu.silent_since,
        "heard_ns": history.age(history.last_heard(vcpu.index)),
        "last_call": None if call is None else called(call),
        "last_result": None if call is None else call.get("result_name") or call.get("result"),
        "where": None if vcpu.where is None else _where(explanation, vcpu.where),
        "stays": vcpu.stays,
    }


def _where(explanation: Explanation, where: Where) -> dict[str, Any]:
    return {
        "pc": where.pc,
        "pc_symbol": explanation.picture.name(where.pc),
        "pstate": where.pstate,
        "el": where.el,
        "x": list(where.x),
        "registers": dict(where.registers),
        "active_priorities": list(where.active_priorities),
        "by": where.by,
    }
