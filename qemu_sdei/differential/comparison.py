"""One comparison: what the other firmware is, ours set up like it, and the hunt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei.differential.answers import Facts
from qemu_sdei.differential.generate import Choice
from qemu_sdei.differential.hunt import Finding, Hunt, Outcome, Plan
from qemu_sdei.differential.sequence import Script
from qemu_sdei.differential.session import Session
from qemu_sdei.differential.sides import ImageSide, OurSide, check_cpus, has_sdei, like, slots
from qemu_sdei.errors import GuestError
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.sdei.events import EventType
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.vm.options import GuestOptions

MAX_STATIC: Final = 3


@dataclass(frozen=True)
class Comparison:
    """What came of one.

    Attributes:
        ours: our firmware as it was set up.
        theirs: the other one.
        outcome: of the sequences.
        facts: what the other one says of itself, by name.
        starts: how often a guest was started on ours, and on theirs.
    """

    ours: OurSide
    theirs: OurSide | ImageSide
    outcome: Outcome
    facts: dict[str, int]
    starts: tuple[int, int]


def run(
    options: GuestOptions,
    theirs: OurSide | ImageSide,
    plan: Plan,
    *,
    calls: int = 10,
    script: Script | None = None,
    as_it_is: bool = False,
    progress: Progress = no_progress,
    on_finding: Callable[[Finding], None] = lambda finding: None,
) -> Comparison:
    """Compare `theirs` with our firmware on a machine of `options`.

    Args:
        plan: how much.
        calls: operations of a sequence, about, at most.
        script: only this sequence.
        as_it_is: our firmware is not set up like the other one.
        on_finding: is told each difference when it is short.

    Raises:
        UsageError: there is no such machine. GuestError: a side does not begin, or the other one has no SDEI.
    """
    check_cpus(options)
    with Session(theirs.name, theirs.start) as other:
        progress(f"starting a guest on {theirs.name}")
        facts = other.begin()
        if not has_sdei(facts):
            raise GuestError(f"{theirs.name} has no SDEI: SDEI_VERSION is {facts.get('version'):#x}")
        ours = OurSide("our firmware", options if as_it_is else like(options, facts))
        with Session(ours.name, ours.start) as own:
            progress("starting a guest on our firmware")
            choice = _choice(options, theirs, calls, facts)
            hunt = Hunt(own, other, choice, plan, progress=progress, on_finding=on_finding)
            try:
                outcome = hunt.run() if script is None else hunt.replay(script)
            finally:
                hunt.close()
            return Comparison(ours, theirs, outcome, dict(facts.values), (own.starts, other.starts))


def _choice(options: GuestOptions, theirs: OurSide | ImageSide, calls: int, facts: Facts) -> Choice:
    private, shared = slots(facts)
    events: tuple[tuple[int, bool], ...] = ()
    if isinstance(theirs, OurSide):
        # The host can inject on both sides, and both have the same events.
        profile = (
            MachineDescription.default() if options.events is None else MachineDescription.load(Path(options.events))
        )
        static = [event for event in profile.events if not event.signalable]
        events = tuple((event.number, event.type == EventType.SHARED) for event in static[:MAX_STATIC])
    return Choice(options.smp, calls, (private > 0, shared > 0), events)
