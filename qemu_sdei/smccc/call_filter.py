"""What becomes of calls before any service sees them: KVM's SMCCC filter (KVM_ARM_VM_SMCCC_FILTER, Linux 6.4).

A rule says of a range of function ids that the firmware handles them, that they are denied, or that they are forwarded
to user space, which here is a service of the user's own. It wins over the bitmaps (`selection.py`). It is about calls
only: SMCCC_ARCH_FEATURES and PSCI_FEATURES answer as without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from errno import EBUSY, EEXIST, EINVAL
from typing import Final, NamedTuple

from qemu_sdei.errors import UsageError
from qemu_sdei.smccc.ids import NUMBER_MASK, Owner, function_id
from qemu_sdei.smccc.selection import RefusedError

MAX_RULES: Final = 256
_LAST: Final = 0xFFFF_FFFF
_PAD: Final = 15
"""Bytes behind the action in `struct kvm_smccc_filter`."""


class Action(Enum):
    """What becomes of a call, with the values of KVM's `enum kvm_smccc_filter_action`."""

    HANDLE = 0
    """The firmware's own services answer."""
    DENY = 1
    """NOT_SUPPORTED."""
    FORWARD = 2
    """A service of the user's own answers; NOT_SUPPORTED where there is none."""


class Rule(NamedTuple):
    """One range: function ids `first` to `last`, inclusive."""

    first: int
    last: int
    action: Action

    def __str__(self) -> str:
        """As it is written on a command line."""
        return f"{self.action.name.lower()}:{self.first:#x}+{self.last - self.first + 1:#x}"


RESERVED: Final = tuple(
    Rule(function_id(Owner.ARCH, 0, width), function_id(Owner.ARCH, NUMBER_MASK, width), Action.HANDLE)
    for width in (32, 64)
)
"""Ranges that nobody may set: a guest without the architecture's own calls finds nothing else."""


class CallFilter:
    """The rules of one machine."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        """Raises what `add` raises."""
        self._rules: list[Rule] = []
        for rule in rules:
            self.add(rule.first, rule.last - rule.first + 1, rule.action.value)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those that were added, in their order."""
        return tuple(self._rules)

    def add(self, base: int, count: int, action: int, pad: bytes = bytes(_PAD), *, has_run: bool = False) -> None:
        """Add a rule, in the words of `struct kvm_smccc_filter`.

        Args:
            base: first function id, 32 bits.
            count: how many function ids.
            action: 0 handle, 1 deny, 2 forward.
            pad: what lies behind them.
            has_run: whether a vCPU of the machine has run already.

        Raises:
            RefusedError: EBUSY: the guest has run. EINVAL: no function, an end beyond 32 bits, an unknown action, or
                a pad that is not zero. EEXIST: it overlaps another rule, or what is reserved.
        """
        if has_run:
            raise RefusedError(EBUSY, "the guest has run already: calls are filtered from the beginning or not at all")
        if len(pad) != _PAD or any(pad):
            raise RefusedError(EINVAL, "SMCCC filter: the pad must be 15 bytes of zero")
        if not 0 <= base <= _LAST or not 0 < count <= _LAST + 1 - base:
            raise RefusedError(EINVAL, f"SMCCC filter: {count:#x} functions from {base:#x} on: not within 32 bits")
        if action not in [each.value for each in Action]:
            raise RefusedError(EINVAL, f"SMCCC filter: action {action} is none: 0 handle, 1 deny, 2 forward")
        rule = Rule(base, base + count - 1, Action(action))
        for other in (*RESERVED, *self._rules):
            if rule.first <= other.last and other.first <= rule.last:
                what = "the architecture's own calls, which are reserved" if other in RESERVED else f"the rule {other}"
                raise RefusedError(EEXIST, f"SMCCC filter: {rule} overlaps {what}")
        if len(self._rules) >= MAX_RULES:
            raise RefusedError(EINVAL, f"SMCCC filter: there can be {MAX_RULES} rules")
        self._rules.append(rule)

    def action(self, function: int) -> Action:
        """What becomes of a call of `function`; HANDLE where no rule says anything."""
        for rule in self._rules:
            if rule.first <= function <= rule.last:
                return rule.action
        return Action.HANDLE

    def forwards(self, first: int, last: int) -> bool:
        """Whether all of `first` to `last` are forwarded."""
        while first <= last:
            for rule in self._rules:
                if rule.action is Action.FORWARD and rule.first <= first <= rule.last:
                    first = rule.last + 1
                    break
            else:
                return False
        return True


VITAL: Final = tuple(
    (function_id(Owner.STANDARD, 0, width), function_id(Owner.STANDARD, 0x1F, width)) for width in (32, 64)
)
"""PSCI: without it a kernel starts no other CPU, and cannot power off."""


def unwise(rules: Iterable[Rule]) -> list[Rule]:
    """Those of the rules by which the firmware no longer answers some of PSCI."""
    return [
        rule
        for rule in rules
        if rule.action is not Action.HANDLE and any(rule.first <= last and first <= rule.last for first, last in VITAL)
    ]


def parse(texts: Iterable[str]) -> list[Rule]:
    """Rules as users write them: "deny:0x84000050+4", "forward:0xc6000001", "handle:0x84000000+0x20".

    Raises:
        UsageError: it is not understood, or cannot be; also where two overlap.
    """
    made = CallFilter()
    for text in texts:
        word, colon, numbers = text.partition(":")
        first, plus, count = numbers.partition("+")
        actions = {action.name.lower(): action for action in Action}
        try:
            if word not in actions or not colon:
                raise ValueError
            made.add(int(first, 0), int(count, 0) if plus else 1, actions[word].value)
        except ValueError:
            raise UsageError(
                f"--smccc-filter {text}: write ACTION:FUNCTION or ACTION:FUNCTION+COUNT, such as deny:0x84000050+4; "
                f"actions are {', '.join(actions)}"
            ) from None
    return list(made.rules)
