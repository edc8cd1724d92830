"""What the guest prints of a sequence, as data.

Guest and firmware are hostile: whatever is no line of the form is nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from qemu_sdei.differential.sequence import MAX_CPUS, checksum

LEFT: Final = 0xF0
BACK: Final = 0xF1
CHECK: Final = 0xF2
NO_OP: Final = 0xFF
STAGES: Final = {
    LEFT: "when the sequence is over",
    BACK: "while handlers are ended, events unregistered and CPUs switched on",
    CHECK: "at the end, all handlers ended and all CPUs on",
}
MAX_RECORDS: Final = 96 * MAX_CPUS
_MAX_LINE: Final = 512
_KINDS: Final = "cdhijknpqsuwxz"
_SUMMED: Final = re.compile(r"(@[bfrejx].*) ~([0-9a-f]{4})\r?")
_RECORD: Final = re.compile(
    rf"@r ([0-9a-f]{{1,2}}) ([0-9a-f]{{1,2}}) ([{_KINDS}]) ([0-9a-f]{{1,2}})"
    r" ([0-9a-f]{1,16}) ([0-9a-f]{1,16}) ([0-9a-f]{1,16})"
)
_END: Final = re.compile(r"@e ([0-9a-f]{1,16}) ([0-9a-f]{1,8}) ([01])")
_INJECT: Final = re.compile(r"@j ([0-9a-f]{1,8}) ([0-9a-f]{1,2})")
_FACT: Final = re.compile(r"([a-z]{1,16})=([0-9a-f]{1,16})")


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened on a CPU; `guest/compare/calls.c` says what the numbers of each kind are."""

    cpu: int
    step: int
    kind: str
    op: int
    a: int = 0
    b: int = 0
    c: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """A sequence is over."""

    number: int
    records: int
    dirty: bool
    """The guest cannot put its CPUs back: the next sequence wants a new one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the guest says of its firmware when it begins."""

    values: Mapping[str, int]

    def get(self, name: str) -> int:
        """One of them; 0 if it is not there."""
        return self.values.get(name, 0)


@dataclass(frozen=True, slots=True)
class Ask:
    """The guest wants an injection, and waits for y or n."""

    event: int
    cpu: int


@dataclass(frozen=True, slots=True)
class Bad:
    """The guest did not take a line."""


@dataclass(frozen=True, slots=True)
class Over:
    """The guest, or its firmware, says why it ends."""

    why: str


Item = Record | End | Facts | Ask | Bad | Over


@dataclass(frozen=True, slots=True)
class Transcript:
    """What came of one sequence on one firmware."""

    records: tuple[Record, ...]
    crash: str = ""
    """Why it did not come to its end; empty: it did."""
    dirty: bool = False

    def at(self, step: int) -> dict[int, list[Record]]:
        """Of one step, by CPU, each in its order."""
        found: dict[int, list[Record]] = {}
        for record in self.records:
            if record.step == step:
                found.setdefault(record.cpu, []).append(record)
        return found

    def health(self) -> dict[int, tuple[bool, bool]]:
        """Of each CPU at the end, as far as it is known: it takes an interrupt, it takes an event."""
        return {r.cpu: (bool(r.a), bool(r.b)) for r in self.records if r.kind == "p"}


class Parser:
    """Console text to items, piece by piece."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, text: str) -> Iterator[Item]:
        """What is whole by now."""
        *whole, rest = (self._rest + text).split("\n")
        # A firmware that prints without ever ending a line.
        self._rest = rest[-_MAX_LINE:]
        for line in whole:
            item = _item(line[-_MAX_LINE:])
            if item is not None:
                yield item


def _item(line: str) -> Item | None:
    if line.startswith(("FAIL: ", "Bail out!")):
        return Over(line.strip())
    # The firmware's own words may stand before ours in the line.
    at = line.rfind("@")
    found = _SUMMED.fullmatch(line[at:]) if at >= 0 else None
    if found is None or checksum(found[1]) != int(found[2], 16):
        return None
    text = found[1]
    if text == "@b":
        return Bad()
    if text == "@x":
        return Over("exceptions without end in the guest")
    if text.startswith("@f "):
        return Facts({name: int(value, 16) for name, value in _FACT.findall(text)[:32]})
    if match := _RECORD.fullmatch(text):
        cpu, step, op = (int(match[n], 16) for n in (1, 2, 4))
        return Record(cpu, step, match[3], op, *(int(match[n], 16) for n in (5, 6, 7))) if cpu < MAX_CPUS else None
    if match := _END.fullmatch(text):
        return End(int(match[1], 16), int(match[2], 16), match[3] == "1")
    if match := _INJECT.fullmatch(text):
        return Ask(int(match[1], 16), int(match[2], 16))
    return None
