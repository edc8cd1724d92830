"""Which rules act: conditions asked, times counted. What they count and mark is state of the guest.

Deterministic: the same occasions in the same order give the same rules, as crash recovery needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from qemu_sdei.errors import ProtocolError
from qemu_sdei.profiles import values
from qemu_sdei.profiles.rule import Rule
from qemu_sdei.profiles.sites import Sites, distance_of
from qemu_sdei.profiles.vocabulary import STATES, Occasion
from qemu_sdei.services.function_names import NAMES

_MAX_COUNT: Final = (1 << 63) - 1


class Scene(Protocol):
    """What rules ask of a guest's firmware."""

    def handlers(self, vcpu: int) -> Sequence[int]:
        """Events whose handlers run there, the innermost last."""

    def masked(self, vcpu: int) -> bool:
        """Whether it is masked (PE_MASK)."""

    def registered(self, vcpu: int) -> bool:
        """Whether it has a private event registered."""

    def pending(self, vcpu: int) -> bool:
        """Whether a private event of it is pending."""

    def state(self, event: int, vcpu: int | None) -> int | None:
        """EVENT_STATUS of an event, as that vCPU sees it; None: there is none."""

    def routed(self, event: int) -> str | None:
        """`any` or `one`, of a shared event; None: it is none."""

    def power(self, vcpu: int) -> str:
        """`on`, `off` or `pending`."""

    def kernel(self) -> int:
        """How many kernels have begun since the reset."""


@dataclass(slots=True)
class Moment:
    """Something that rules are asked about.

    Attributes:
        occasion: what happens.
        vcpu: whose; None: nobody's (the trigger of a shared event).
        function: id of the call.
        x: its registers x0 to x5.
        event: the event; None: none.
        target: the vCPU that the call names; None: none.
        named: the call has an argument that names a vCPU.
        pc: where it was called, or what is interrupted.
        caller: its register x30.
        by: who triggers.
    """

    occasion: Occasion
    vcpu: int | None
    function: int = 0
    x: Sequence[int] = ()
    event: int | None = None
    target: int | None = None
    named: bool = False
    pc: int = 0
    by: str = ""
    caller: int = 0


class Matcher:
    """The rules of one guest with what they have counted.

    Attributes:
        marks: marks on vCPUs: (name, vCPU).
    """

    def __init__(self, rules: Sequence[Rule], scene: Scene) -> None:
        self.marks: set[tuple[str, int]] = set()
        self._rules = tuple(rules)
        self._scene = scene
        self._counts: dict[tuple[int, int], int] = {}
        """(rule, vCPU or -1) -> how often all else held."""
        self._calls: dict[int, list[int]] = {}
        self._others: dict[tuple[Occasion, bool], list[int]] = {}
        sites = [site for rule in self._rules for found in rule.sites.values() for site in found]
        self._anchors = list(dict.fromkeys(site.anchor for site in sites if site.anchor is not None))
        self._kernel: tuple[int, int] | None = None
        """Which of the anchors the guest's kernel has, and by how much it lies elsewhere than its file says; None: no
        call has told it yet.
        """
        for index, rule in enumerate(self._rules):
            for function in rule.functions:
                self._calls.setdefault(function, []).append(index)
            if rule.occasion is not Occasion.CALL:
                self._others.setdefault((rule.occasion, keeps_priorities(rule)), []).append(index)

    @property
    def functions(self) -> frozenset[int]:
        """Ids of the functions that a rule is about, or that tell where the guest's kernel is."""
        return frozenset(self._calls) | (frozenset(NAMES) if self._anchors else frozenset())

    @property
    def asks_callers(self) -> bool:
        """Whether a rule asks who called."""
        return any("caller" in rule.values for rule in self._rules)

    def at(self, occasion: Occasion) -> bool:
        """Whether a rule is about an occasion other than a call."""
        return (occasion, False) in self._others

    def rules_of(self, moment: Moment, *, priorities: bool = False) -> list[tuple[int, Rule]]:
        """The rules that act now, with their numbers from 1; the time is counted. `priorities`: those that keep active
        priorities, which are asked by themselves.
        """
        found = []
        self._kernel = self._kernel_at(moment)
        for index in self._about(moment, priorities):
            rule = self._rules[index]
            if self._holds(rule, moment):
                key = self._key(index, rule, moment)
                self._counts[key] = count = min(self._counts.get(key, 0) + 1, _MAX_COUNT)
                if rule.values.get("nth", values.ALWAYS).has(count):
                    found.append((index + 1, rule))
        return found

    def late_ns(self, moment: Moment, ahead: Callable[[int], int]) -> tuple[int, tuple[int, ...]]:
        """By how much the call that is to come is late, in nanoseconds, and the rules that are about it; nothing is
        counted. `ahead`: how many calls that a rule is about were put off, and come before it.
        """
        late, about = 0, []
        for index in self._about(moment):
            rule = self._rules[index]
            if "late" in rule.values and self._holds(rule, moment):
                about.append(index)
                count = self._counts.get(self._key(index, rule, moment), 0) + 1 + ahead(index)
                if rule.values.get("nth", values.ALWAYS).has(count):
                    late += rule.values["late"]
        return min(late, values.MAX_LATE_NS), tuple(about)

    def take_over(self, other: Matcher, rules: int) -> None:
        """Go on with the marks of another matcher, and with what it has counted of its first rules, which are ours."""
        known = names_of(self._rules)
        self.marks = {mark for mark in other.marks if mark[0] in known}
        self._counts = {key: count for key, count in other._counts.items() if key[0] < rules}
        self._kernel = other._kernel if self._anchors == other._anchors else None

    def _about(self, moment: Moment, priorities: bool = False) -> Iterable[int]:
        if moment.occasion is Occasion.CALL:
            return self._calls.get(moment.function, ())
        return self._others.get((moment.occasion, priorities), ())

    def _key(self, index: int, rule: Rule, moment: Moment) -> tuple[int, int]:
        each = rule.values.get("each-vcpu", False) and moment.vcpu is not None
        return index, moment.vcpu if each and moment.vcpu is not None else -1

    def _kernel_at(self, moment: Moment) -> tuple[int, int] | None:
        if moment.occasion is Occasion.CALL:
            for number, anchor in enumerate(self._anchors):
                distance = distance_of(moment.pc, anchor)
                if distance is not None:
                    return number, distance
        return self._kernel

    def _at_site(self, address: int, wanted: Sites, moment: Moment) -> bool:
        kernel = self._kernel_at(moment)
        anchor, distance = (None, None) if kernel is None else (self._anchors[kernel[0]], kernel[1])
        return any(site.has(address, distance if site.anchor == anchor else None) for site in wanted)

    def _holds(self, rule: Rule, moment: Moment) -> bool:
        return all(_ASK[word](self, value, moment) for word, value in rule.values.items() if word in _ASK)

    # ---- what is remembered ------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """The machine was reset: marks are gone, and the next kernel lies elsewhere. Times are counted on."""
        self.marks.clear()
        self._kernel = None

    def snapshot(self) -> dict[str, Any]:
        """Counts and marks, JSON-able."""
        return {
            "counts": [[rule, vcpu, count] for (rule, vcpu), count in sorted(self._counts.items())],
            "marks": [list(mark) for mark in sorted(self.marks)],
            **({} if self._kernel is None else {"kernel": list(self._kernel)}),
        }

    def restore(self, state: Mapping[str, Any], vcpus: int) -> None:
        """Take over a snapshot of a guest with so many vCPUs. Raises `ProtocolError`: it is damaged."""
        counts: dict[tuple[int, int], int] = {}
        marks: set[tuple[str, int]] = set()
        try:
            for rule, vcpu, count in state["counts"]:
                if not (_is(rule, 0, len(self._rules) - 1) and _is(vcpu, -1, vcpus - 1) and _is(count, 1, _MAX_COUNT)):
                    raise ValueError("a count of no rule")
                if (rule, vcpu) in counts or (vcpu >= 0) is not bool(self._rules[rule].values.get("each-vcpu")):
                    raise ValueError("a count twice, or of a vCPU where all are counted together")
                counts[rule, vcpu] = count
            known = names_of(self._rules)
            for name, vcpu in state["marks"]:
                if name not in known or not _is(vcpu, 0, vcpus - 1):
                    raise ValueError("a mark that no rule makes")
                marks.add((name, vcpu))
            kernel = tuple(state["kernel"]) if "kernel" in state else None
            if kernel is not None:
                number, distance = kernel
                if not _is(number, 0, len(self._anchors) - 1) or not _is(distance, -_MAX_COUNT, 1 << 64):
                    raise ValueError("a kernel's place that no rule asks for")
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"firmware profile: {error}") from None
        self._counts, self.marks, self._kernel = counts, marks, kernel

    def acted(self) -> list[int]:
        """Of each rule, how often it has acted."""
        found = [0] * len(self._rules)
        for (rule, _), count in self._counts.items():
            found[rule] += self._rules[rule].values.get("nth", values.ALWAYS).among(count)
        return found

    # ---- conditions --------------------------------------------------------------------------------------------------

    def _state(self, wanted: tuple[str, ...], moment: Moment) -> bool:
        if moment.event is None or (moment.named and moment.target is None):
            return False
        where = moment.target if moment.named else moment.vcpu
        return self._scene.state(moment.event, where) in [STATES[word] for word in wanted]

    def _running(self, wanted: values.Ranges, moment: Moment) -> bool:
        running = self._handlers(moment)
        return bool(running) and values.within(running[-1], wanted)

    def _handlers(self, moment: Moment) -> Sequence[int]:
        return () if moment.vcpu is None else self._scene.handlers(moment.vcpu)


def keeps_priorities(rule: Rule) -> bool:
    """Whether it is asked when a CPU's active priorities are to be ended, and at no other time."""
    return "priorities" in rule.values.get("keeps", ())


def names_of(rules: Iterable[Rule]) -> set[str]:
    """The marks that rules make."""
    return {rule.values[word] for rule in rules for word in ("marks", "marks-target") if word in rule.values}


def _is(value: object, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _of_vcpu(ask: Callable[[Matcher, int], bool]) -> Callable[[Matcher, Any, Moment], bool]:
    return lambda matcher, wanted, moment: moment.vcpu is not None and ask(matcher, moment.vcpu) is wanted


def _of_target(ask: Callable[[Matcher, int], bool]) -> Callable[[Matcher, Any, Moment], bool]:
    return lambda matcher, wanted, moment: moment.target is not None and ask(matcher, moment.target) is wanted


def _in(number: int | None, wanted: values.Ranges) -> bool:
    return number is not None and values.within(number, wanted)


def _argument(n: int) -> Callable[[Matcher, Any, Moment], bool]:
    return lambda _, wanted, moment: n < len(moment.x) and values.within(moment.x[n], wanted)


def _target(_: Matcher, wanted: values.Ranges | None, moment: Moment) -> bool:
    return moment.target is None if wanted is None else _in(moment.target, wanted)


_ASK: Final[dict[str, Callable[[Matcher, Any, Moment], bool]]] = {
    "vcpu": lambda _, wanted, moment: _in(moment.vcpu, wanted),
    "target": _target,
    "event": lambda _, wanted, moment: _in(moment.event, wanted),
    **{f"x{n}": _argument(n) for n in range(1, 6)},
    "pc": lambda matcher, wanted, moment: matcher._at_site(moment.pc, wanted, moment),
    "caller": lambda matcher, wanted, moment: matcher._at_site(moment.caller, wanted, moment),
    "handler": lambda matcher, wanted, moment: moment.vcpu is not None and bool(matcher._handlers(moment)) is wanted,
    "running": Matcher._running,
    "masked": _of_vcpu(lambda matcher, vcpu: matcher._scene.masked(vcpu)),
    "registered": _of_vcpu(lambda matcher, vcpu: matcher._scene.registered(vcpu)),
    "pending": _of_vcpu(lambda matcher, vcpu: matcher._scene.pending(vcpu)),
    "state": Matcher._state,
    "target-power": lambda matcher, wanted, moment: (
        moment.target is not None and matcher._scene.power(moment.target) in wanted
    ),
    "target-masked": _of_target(lambda matcher, vcpu: matcher._scene.masked(vcpu)),
    "kernel": lambda matcher, wanted, moment: values.within(matcher._scene.kernel(), wanted),
    "routed": lambda matcher, wanted, moment: (
        moment.event is not None and matcher._scene.routed(moment.event) == wanted
    ),
    "by": lambda _, wanted, moment: moment.by == wanted,
    "marked": lambda matcher, wanted, moment: (wanted, moment.vcpu) in matcher.marks,
    "target-marked": lambda matcher, wanted, moment: (wanted, moment.target) in matcher.marks,
}
"""Of each condition but those of counting: whether it holds."""
