"""What a rule of a firmware profile can say: occasions, conditions, actions, and what may stand with what. Data.

`scripts/docgen.py` prints these tables as docs/reference/firmware-profiles.md; `values.py` reads the values,
`matching.py` asks the conditions, and `qemu_sdei/backend/firmware/misbehaviour.py` carries the actions out.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Occasion(Enum):
    """When a rule can act, beside at a call, which is said by the function's name."""

    CALL = "call"
    TRIGGER = "trigger"
    DELIVERY = "delivery"
    CPU_UP = "cpu-up"
    WAKE = "wake"
    KERNEL = "kernel"
    RESET = "reset"


class Kind(Enum):
    """What form a value has."""

    YES = "`yes` or `no`"
    VCPUS = "vCPUs: `1`, `0,2..3`"
    TARGETS = "vCPUs, or `none`: the affinity names no vCPU"
    NUMBERS = "numbers and ranges: `0`, `0x100..0x1ff,1019`"
    SITES = "addresses, ranges, and functions by name: `0x40080000..0x400800ff`, `psci_cpu_off`"
    NTH = "`3`, `2..5`, `4..`, or `every:10`"
    WORDS = "words"
    NAME = "a name of your own: a-z, 0-9, -"
    RESULT = "a code such as `DENIED`, or a number"
    TIME = "`500us`, `5ms`, `2s`; at most 600 s"
    VCPU = "a vCPU's number"
    REGISTERS = "registers: `x4..x17`, `x1,x9`, `ELR_EL1`"


W: Final = Occasion
K: Final = Kind
ANYWHERE: Final = tuple(Occasion)
_AT_A_VCPU: Final = (W.CALL, W.TRIGGER, W.DELIVERY, W.CPU_UP, W.WAKE, W.KERNEL)


class OccasionRow(NamedTuple):
    """An occasion."""

    occasion: Occasion
    what: str
    whose: str
    """Which vCPU it is about."""


OCCASIONS: Final = (
    OccasionRow(W.CALL, "the name of a function (`CPU_OFF`, `EVENT_SIGNAL`), a pattern of names (`SDEI_*`, `*`), or a "
                "function id (`0x84000050`): it was called", "the caller"),
    OccasionRow(W.TRIGGER, "an event is triggered by the host or by its bound interrupt (a guest's own trigger is "
                "`EVENT_SIGNAL`)", "that of a private event; the one that took the interrupt"),
    OccasionRow(W.DELIVERY, "an event's handler is entered", "the one that runs it"),
    OccasionRow(W.CPU_UP, "a vCPU comes up after CPU_ON, or after the machine's reset", "that one"),
    OccasionRow(W.WAKE, "a vCPU comes back from a CPU_SUSPEND that powered it down", "that one"),
    OccasionRow(W.KERNEL, "a kernel begins that another one has started (kexec, kdump), by its first "
                "MIGRATE_INFO_TYPE", "the one that runs it"),
    OccasionRow(W.RESET, "the machine is reset", "vCPU 0"),
)  # fmt: skip


class Condition(NamedTuple):
    """Something that a rule asks."""

    word: str
    kind: Kind
    occasions: tuple[Occasion, ...]
    what: str


CONDITIONS: Final = (
    Condition("nth", K.NTH, ANYWHERE, "of the times at which all other conditions hold, these"),
    Condition("each-vcpu", K.YES, _AT_A_VCPU, "`nth` counts for each vCPU by itself"),
    Condition("vcpu", K.VCPUS, _AT_A_VCPU, "the vCPU that it is about"),
    Condition("target", K.TARGETS, (W.CALL,), "the vCPU that the call names: CPU_ON, AFFINITY_INFO, EVENT_SIGNAL, "
              "EVENT_REGISTER, EVENT_ROUTING_SET"),
    Condition("event", K.NUMBERS, (W.CALL, W.TRIGGER, W.DELIVERY), "the event that the call names, or that is "
              "triggered or delivered; of EVENT_COMPLETE, EVENT_COMPLETE_AND_RESUME and EVENT_CONTEXT that of the "
              "innermost handler"),
    *(Condition(f"x{n}", K.NUMBERS, (W.CALL,), f"argument register x{n}, 64 bits") for n in range(1, 6)),
    Condition("pc", K.SITES, (W.CALL, W.DELIVERY), "the call site: address of the instruction behind the SMC; of a "
              "delivery what it interrupts"),
    Condition("caller", K.SITES, (W.CALL,), "the link register at the call (x30): where the function returns to that "
              "has the SMC in it"),
    Condition("handler", K.YES, _AT_A_VCPU, "an SDEI handler runs on the vCPU"),
    Condition("running", K.NUMBERS, (W.CALL, W.DELIVERY, W.KERNEL), "the innermost handler is that of this event "
              "(at a delivery: before it)"),
    Condition("masked", K.YES, _AT_A_VCPU, "the vCPU is masked (PE_MASK)"),
    Condition("registered", K.YES, (W.CALL,), "the caller has a private event registered"),
    Condition("pending", K.YES, (W.CALL,), "a private event of the caller is pending"),
    Condition("state", K.WORDS, (W.CALL, W.TRIGGER), "that event is in this state, at EVENT_SIGNAL its target's; "
              "`unknown`: there is none of this number"),
    Condition("routed", K.WORDS, (W.TRIGGER,), "a shared event may be taken by `any` vCPU, or by `one`"),
    Condition("target-power", K.WORDS, (W.CALL,), "power of the vCPU that the call names: `on`, `off`, `pending`"),
    Condition("target-masked", K.YES, (W.CALL,), "the vCPU that the call names is masked"),
    Condition("kernel", K.NUMBERS, ANYWHERE, "which kernel since the reset: 2 is one that the first has started"),
    Condition("by", K.WORDS, (W.TRIGGER,), "`host` or `interrupt`"),
    Condition("marked", K.NAME, _AT_A_VCPU, "a rule has put this mark on the vCPU"),
    Condition("target-marked", K.NAME, (W.CALL,), "the same of the vCPU that the call names"),
)  # fmt: skip


class Action(NamedTuple):
    """Something that a rule does."""

    word: str
    kind: Kind
    occasions: tuple[Occasion, ...]
    what: str
    against: str
    """What it is against, or why it is there."""
    only: tuple[str, ...] = ()
    """Functions at whose calls alone it can stand; none: all."""
    choices: tuple[str, ...] = ()
    """Of `Kind.WORDS`: the words."""


_SIGNAL: Final = "SDEI_EVENT_SIGNAL"
_CONTEXT: Final = "SDEI_EVENT_CONTEXT"
_COMPLETE: Final = "SDEI_EVENT_COMPLETE"
_RESUME: Final = "SDEI_EVENT_COMPLETE_AND_RESUME"
_COMES_UP: Final = (W.CPU_UP, W.WAKE)

ACTIONS: Final = (
    Action("returns", K.RESULT, (W.CALL,), "nothing is done; the call has this result", "a wrong error code: DEN0054 "
           "5.1, 5.3; DEN0022 5.2.2"),
    Action("answers", K.RESULT, (W.CALL,), "the call is carried out; its result is this one", "versions and features "
           "(DEN0054 5.1.1, 5.1.17; DEN0028 7), or a wrong result of what was done"),
    Action("late", K.TIME, (W.CALL,), "the call is carried out, and returns, this much later at least (a millisecond "
           "more or less); other vCPUs are served meanwhile. Once more after a migration or a crash of the backend "
           "that falls into that time", "nothing in the specifications bounds it"),
    Action("never", K.WORDS, (W.CALL, W.TRIGGER, W.DELIVERY, W.CPU_UP), "the vCPU stays in EL3 until the machine is "
           "reset: `instead` of what it came for, or `after` it", "a silent wedge of EL3",
           choices=("instead", "after")),
    Action("loses", K.WORDS, (W.CALL, W.TRIGGER, W.DELIVERY), "`event`: an EVENT_SIGNAL or trigger that succeeds has "
           "no effect; a delivery does not happen, and the event is pending no more; at EVENT_COMPLETE what is "
           "pending on the caller is dropped. `kick`: the event is pending, the CPU to be started is ON_PENDING, and "
           "nobody tells the vCPU: it is seen when the vCPU comes to the firmware next by itself",
           "DEN0054 5.1.16, 6.1: pending until it is delivered; DEN0022 5.1.4",
           only=(_SIGNAL, "CPU_ON", _COMPLETE, _RESUME), choices=("event", "kick")),
    Action("doubles", K.YES, (W.DELIVERY,), "the event is pending again at once: its handler runs twice",
           "DEN0054 5.1.16.1: triggers merge, they do not multiply"),
    Action("to", K.VCPU, (W.CALL, W.TRIGGER, W.DELIVERY), "a private event goes to that vCPU instead, if it has it "
           "registered; else it is lost", "DEN0054 5.1.16, 6.2", only=(_SIGNAL,)),
    Action("clobbers", K.REGISTERS, (W.CALL, W.DELIVERY), "these registers hold 0xbad0bad0bad0bad0 after the call, or "
           "when the handler begins (its x0 to x3 are what it is told)", "DEN0028 2.6: x4 to x17 are preserved; "
           "DEN0054 5.2.1"),
    Action("zeroes", K.REGISTERS, (W.CALL, W.DELIVERY), "the same with 0", "as `clobbers`"),
    Action("context", K.WORDS, (W.CALL,), "EVENT_CONTEXT reads, EVENT_COMPLETE restores, what the `outer` handler has "
           "interrupted (if there is one; `zero`: registers of 0)", "DEN0054 5.1.5, 5.1.6",
           only=(_CONTEXT, _COMPLETE), choices=("outer", "zero")),
    Action("unchecked", K.YES, (W.CALL,), "any address is taken", "DEN0054 5.1.7: an address that is not valid is "
           "DENIED", only=(_RESUME,)),
    Action("holds", K.YES, (W.DELIVERY,), "until its handler completes, no interrupt of the guest is signalled to the "
           "vCPU: a priority stays active at the GIC", "allowed, and what makes kdump from a handler hang"),
    Action("deaf", K.YES, (W.CALL, W.DELIVERY, *_COMES_UP), "the vCPU takes no interrupt and no event any more, until "
           "it is powered off or the machine is reset: a priority stays active at the GIC",
           "DEN0054 6.1; DEN0022 6.4"),
    Action("leaves", K.WORDS, (W.CALL, *_COMES_UP), "the vCPU is `masked` or `unmasked` after it", "DEN0054 6.5.1, "
           "6.5.2: masked after reset, CPU_ON and power-down; 5.1.11, 5.1.12", choices=("masked", "unmasked")),
    Action("keeps", K.WORDS, (W.CALL, *_COMES_UP, W.KERNEL, W.RESET), "at CPU_OFF: private `events` are registered, "
           "their `handlers` run, and the `mask` is as it was, when the CPU comes up again. At reset: `events`, shared "
           "ones and vCPU 0's (no pending one, no bound one). At cpu-up, wake and kernel: `priorities` that an "
           "interrupt's handler left active", "DEN0054 6.5.1, 6.5.2, 6.5.4; DEN0022 6.4",
           only=("CPU_OFF",), choices=("events", "handlers", "mask", "priorities")),
    Action("drops", K.WORDS, (W.CALL, W.WAKE), "private `events` of the vCPU are unregistered; its `handlers` end "
           "without a word", "DEN0054 6.5.2: a power-down keeps registrations", choices=("events", "handlers")),
    Action("disables", K.YES, (W.CALL,), "the interrupt of a bound event goes back to the guest disabled, with the "
           "lowest priority", "DEN0054 5.1.8, 6.7: as it was", only=("SDEI_EVENT_UNREGISTER",)),
    Action("marks", K.NAME, _AT_A_VCPU, "puts a mark on the vCPU, for other rules to ask for; a reset of the machine "
           "takes it away", "what firmware remembers and should not"),
    Action("unmarks", K.NAME, _AT_A_VCPU, "takes it away", ""),
    Action("marks-target", K.NAME, (W.CALL,), "as `marks`, on the vCPU that the call names", ""),
)  # fmt: skip

STATES: Final[dict[str, int | None]] = {
    "unknown": None,
    "unregistered": 0,
    "registered": 1,
    "enabled": 3,
    "running": 7,
    "running-disabled": 5,
    "unregister-pending": 4,
}
"""EVENT_STATUS of each word of `state`, as in the SDEI core's table; None: it has none."""
_CONDITION_CHOICES: Final = {
    "state": tuple(STATES),
    "target-power": ("on", "off", "pending"),
    "by": ("host", "interrupt"),
    "routed": ("any", "one"),
}
LISTS: Final = frozenset(("keeps", "drops", "state", "target-power"))
"""Words whose value is a list of words; of others it is one."""
OF_CONDITION: Final = {row.word: row for row in CONDITIONS}
OF_ACTION: Final = {row.word: row for row in ACTIONS}

EXCLUDED: Final = (
    (("returns",), ("answers", "never", "to", "loses", "context", "unchecked", "keeps", "disables")),
    (("never",), ("answers", "late", "clobbers", "zeroes")),
    (("loses",), ("to", "doubles", "context")),
    (("to",), ("doubles", "holds")),
    (("unchecked",), ("context",)),
)
"""Actions that contradict each other in one rule: each of the first with each of the second."""

TARGET_ARGUMENT: Final = {
    "CPU_ON": 1,
    "AFFINITY_INFO": 1,
    "SDEI_EVENT_SIGNAL": 2,
    "SDEI_EVENT_ROUTING_SET": 3,
    "SDEI_EVENT_REGISTER": 5,
}
"""Which argument of a call is an affinity."""
EVENT_ARGUMENT: Final = frozenset(
    f"SDEI_{name}"
    for name in (
        *("EVENT_REGISTER", "EVENT_ENABLE", "EVENT_DISABLE", "EVENT_UNREGISTER", "EVENT_STATUS", "EVENT_GET_INFO"),
        *("EVENT_ROUTING_SET", "INTERRUPT_RELEASE", "EVENT_SIGNAL"),
    )
)
"""Calls whose x1 is an event's number."""
INNERMOST: Final = frozenset((_COMPLETE, _RESUME, _CONTEXT))
"""Calls that are about the innermost handler."""


def choices_of(word: str) -> tuple[str, ...]:
    """The words that the value of a condition or an action of `Kind.WORDS` can be."""
    return _CONDITION_CHOICES.get(word) or (OF_ACTION[word].choices if word in OF_ACTION else ())
