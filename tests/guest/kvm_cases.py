"""KVM's own case lists for its services (selftests `hypercalls` and `smccc_filter`), for this firmware.

What is called is in `guest/bench/services.h`, which the bare-metal guest goes through. What must come follows from the
bits that are set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from errno import EBUSY, EEXIST, EINVAL
from pathlib import Path
from typing import Final, Literal

from qemu_sdei.smccc.selection import REGISTERS

SOURCE: Final = Path(__file__).resolve().parents[2] / "guest/bench/services.h"
NOT_SUPPORTED: Final = (1 << 64) - 1
_CASE: Final = re.compile(r'^(SERVED|ALWAYS|NEVER)\((?:"([\w-]+)", "(\w+)", )?"([^"]+)", (0x\w+), (\w+)\)$', re.M)


@dataclass(frozen=True)
class Case:
    """A call, and when it is to be answered."""

    kind: Literal["SERVED", "ALWAYS", "NEVER"]
    bit: tuple[str, str] | None
    """Register and feature by which it is withheld."""
    name: str
    function: int
    x1: int

    def is_there(self, selected: Mapping[str, set[str]]) -> bool:
        """Whether it must be answered by a firmware of which these features are selected, by register."""
        if self.bit is None:
            return self.kind == "ALWAYS"
        register, feature = self.bit
        return feature in selected[register]


def cases() -> list[Case]:
    """All of them."""
    found = []
    for kind, register, feature, name, function, x1 in _CASE.findall(SOURCE.read_text()):
        bit = (register, feature) if kind == "SERVED" else None
        found.append(Case(kind, bit, name, int(function, 16), int(x1, 0)))
    return found


BITS: Final = [(register.word, feature.word) for register in REGISTERS for feature in register.features]
EVERYTHING: Final = {register.word: {feature.word for feature in register.features} for register in REGISTERS}
NOTHING: Final[dict[str, set[str]]] = {register.word: set() for register in REGISTERS}


def words(selected: Mapping[str, set[str]]) -> tuple[str, ...]:
    """The same for `--services`."""
    return tuple(f"{register}={','.join(sorted(features))}" for register, features in selected.items())


@dataclass(frozen=True)
class Filter:
    """A range that is added to the filter, after others, and what KVM makes of it."""

    name: str
    base: int
    count: int
    action: int
    errno: int | None
    pad: bytes = bytes(15)
    before: tuple[tuple[int, int], ...] = ()
    """Ranges that are denied already: base and count."""
    has_run: bool = False


CPU_ON: Final = 0xC400_0003
PSCI_VERSION: Final = 0x8400_0000
DENY: Final = 1
FILTERS: Final = (
    Filter("the pad must be zero", PSCI_VERSION, 1, DENY, EINVAL, pad=b"\xff" + bytes(14)),
    Filter("a function of the architecture's is reserved", 0x8000_8000, 1, DENY, EEXIST),
    Filter("also by its 64-bit id", 0xC000_0000, 1, DENY, EEXIST),
    Filter("no function", CPU_ON, 0, DENY, EINVAL),
    Filter("no function from 0 on", 0, 0, DENY, EINVAL),
    Filter("more than 32 bits", 0xFFFF_FFFF, 0xFFFF_FFFF, DENY, EINVAL),
    Filter("an action that there is not", CPU_ON, 1, 0xFF, EINVAL),
    Filter("an action less than 0", CPU_ON, 1, -1, EINVAL),
    Filter("one range", CPU_ON, 1, DENY, None),
    Filter("a range in another one", CPU_ON + 1, 1, DENY, EEXIST, before=((CPU_ON, 4),)),
    Filter("a range around another one", CPU_ON - 1, 8, DENY, EEXIST, before=((CPU_ON, 1),)),
    Filter("a range that ends in another one", CPU_ON - 1, 2, DENY, EEXIST, before=((CPU_ON, 4),)),
    Filter("a range that begins in another one", CPU_ON + 3, 9, DENY, EEXIST, before=((CPU_ON, 4),)),
    Filter("the same range", CPU_ON, 1, DENY, EEXIST, before=((CPU_ON, 1),)),
    Filter("a range behind another one", CPU_ON + 4, 1, DENY, None, before=((CPU_ON, 4),)),
    Filter("after the guest has run", CPU_ON, 1, DENY, EBUSY, has_run=True),
)
