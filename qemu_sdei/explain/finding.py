"""Findings: what a rule has recognised."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Weight(IntEnum):
    """How much a finding explains."""

    NOTE = 0
    """Good to know."""
    WARNING = 1
    """Something does not go on, or will not."""
    ERROR = 2
    """This is what the guest hangs by."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One situation.

    Attributes:
        rule: its name: that of the rule's module.
        weight: how much it explains.
        title: what it is, in a line.
        text: what happened, in sentences.
        todo: what the kernel, or a person, has to do next, with the clause; "" if there is nothing.
        evidence: what it was seen by, a line each.
        references: where more is said.
        about: what it explains, as keys; a finding whose keys all belong to deeper findings is left out.
        depth: how specific its rule is.
    """

    rule: str
    weight: Weight
    title: str
    text: str
    todo: str = ""
    evidence: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    about: frozenset[str] = frozenset()
    depth: int = 1

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "rule": self.rule,
            "weight": self.weight.name.lower(),
            "title": self.title,
            "text": self.text,
            "todo": self.todo,
            "evidence": list(self.evidence),
            "references": list(self.references),
        }


def by_weight(findings: list[Finding]) -> list[Finding]:
    """The heaviest first, without those that deeper ones explain."""

    def explained(finding: Finding) -> bool:
        deeper = [other.about for other in findings if other.depth > finding.depth]
        return bool(finding.about) and finding.about <= frozenset().union(*deeper)

    return sorted((f for f in findings if not explained(f)), key=lambda f: (-f.weight, -f.depth))
