"""What firmware that misbehaves on purpose does to the core: against its rules, but never against its invariants.

Counts hold (accepted = merged + dropped + delivered + what is pending), and so does the form of a state: a guest with
such firmware is saved and migrated as any other. Who asks for it: `qemu_sdei/backend/firmware/misbehaviour.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_sdei.errors import ProtocolError
from qemu_sdei.sdei.constants import SUCCESS
from qemu_sdei.sdei.context import Regs
from qemu_sdei.sdei.events import ANY_PE, Instance
from qemu_sdei.sdei.pstate import MODE_MASK
from qemu_sdei.sdei.report import Document
from qemu_sdei.sdei.state import Kept, checked_part, private_part, shared_part
from qemu_sdei.sdei.transitions import (
    BIT_REGISTERED,
    BIT_RUNNING,
    COMPLETE_NEXT,
    TRIGGER_RESULT,
    UNREGISTERED,
    Action,
)

if TYPE_CHECKING:
    from qemu_sdei.sdei.engine import Engine
    from qemu_sdei.sdei.interrupts import Interrupts


# ---- what rules ask --------------------------------------------------------------------------------------------------


def masked(engine: Engine, pe: int) -> bool:
    """Whether a PE is masked."""
    return engine._pes[pe].masked


def registered(engine: Engine, pe: int) -> bool:
    """Whether a private event is registered there."""
    return any(inst.state & BIT_REGISTERED for inst in engine._pes[pe].private.values())


def pending(engine: Engine, pe: int) -> bool:
    """Whether a private event is pending there."""
    return any(inst.pending for inst in engine._pes[pe].private.values())


def state(engine: Engine, event: int, pe: int | None) -> int | None:
    """EVENT_STATUS of an event, as `pe` sees it (None: of a shared one); None: there is none."""
    inst = engine._shared.get(event) if pe is None else engine._pes[pe].instances.get(event)
    return None if inst is None else inst.state


def routed(engine: Engine, event: int) -> str | None:
    """`any` or `one`, of a shared event; None: it is none."""
    inst = engine._shared.get(event)
    return None if inst is None else "any" if inst.target == ANY_PE else "one"


def intid_of(engine: Engine, event: int) -> int | None:
    """The interrupt that is bound to an event; None: none is."""
    slot = engine._slots.get(event)
    return None if slot is None else slot.intid or None


def next_event(engine: Engine, pe: int, pstate: int) -> int | None:
    """The event whose handler `dispatch` would enter now; None: none. `pstate`: what it would interrupt."""
    best = engine._best(engine._pes[pe]) if engine._interruptible[pstate & MODE_MASK] else None
    return None if best is None else best.number


# ---- what they do ----------------------------------------------------------------------------------------------------


def set_mask(engine: Engine, pe: int, masked: bool) -> None:
    """As PE_MASK and PE_UNMASK, by nobody's call. A PE that is off stays as it is."""
    p = engine._pes[pe]
    if not p.on or p.masked is masked:
        return
    if masked:
        engine._mask(p)
        return
    p.masked = False
    p.set_gate()
    engine._open(p)


def lose_pending(engine: Interrupts, pe: int) -> None:
    """Private events of a PE are pending no more."""
    for number in engine._pes[pe].private:
        claim = lose_event(engine, number, pe)
        if claim is not None:
            engine.interrupts.append(claim)


def lose_event(engine: Interrupts, event: int, pe: int | None) -> tuple[int, int] | None:
    """An event that is pending is so no more. `pe`: of a private one. Returns (INTID, PE) of a bound interrupt of which
    the GIC has to be told: as one of `Engine.interrupts`.
    """
    inst = engine._shared.get(event) or (None if pe is None else engine._pes[pe].private.get(event))
    if inst is None or not inst.pending:
        return None
    if inst.armed:
        engine._disarm(inst)
    inst.pending = False
    inst.dropped += 1
    return None if inst.slot is None else (inst.slot.intid, inst.pe)


def again(engine: Engine, pe: int) -> None:
    """The event whose handler was entered just now is pending again."""
    inst = engine._pes[pe].running[-1]
    if not inst.pending and TRIGGER_RESULT[inst.state] == SUCCESS:
        inst.pending = True
        inst.accepted += 1


def end_handlers(engine: Engine, pe: int) -> None:
    """Handlers that run on a PE end; the PE goes on where it is."""
    p = engine._pes[pe]
    while p.running:
        engine._complete_innermost(p)


def unregister(engine: Engine, pe: int) -> None:
    """Private events of a PE whose handlers do not run are unregistered."""
    for inst in engine._pes[pe].private.values():
        if inst.state != UNREGISTERED and not inst.state & BIT_RUNNING:
            engine._apply(inst, Action.PE_RESET, pe)
            inst.clear()


def outer(engine: Engine, pe: int) -> Regs | None:
    """What the handler below the innermost one has interrupted; None: there is none."""
    p = engine._pes[pe]
    return p.frames[len(p.running) - 2] if len(p.running) > 1 else None


# ---- what is kept over a power-down or a reset -----------------------------------------------------------------------


def keep(engine: Interrupts, pe: int, what: frozenset[str]) -> Document:
    """What of a PE is to outlive its power-down: JSON-able. `what`: of "events", "handlers", "mask".

    Events that an interrupt is bound to are left out: the GIC would have to be told. Nothing that is kept is pending.
    """
    found = private_part(engine, pe)
    events = [entry for entry in found["events"] if entry["event"] not in engine._slots]
    names = {entry["event"] for entry in events}
    frames = [frame for frame in found["frames"] if frame["event"] in names] if "handlers" in what else []
    if len(frames) < len(found["frames"]):
        frames = []  # one of two handlers cannot be kept without the other
    running = {frame["event"] for frame in frames}
    return {
        "masked": found["masked"] if "mask" in what else True,
        "events": [_quiet(entry, entry["event"] in running) for entry in events] if "events" in what else [],
        "frames": frames,
    }


def keep_shared(engine: Interrupts) -> list[Document]:
    """Shared events that are to outlive a reset: JSON-able. None of them runs or is pending."""
    found = [_quiet(entry, False) for entry in shared_part(engine) if entry["event"] not in engine._slots]
    return [entry for entry in found if entry["state"] != UNREGISTERED]


def _quiet(entry: Document, running: bool) -> Document:
    known: int = entry["state"]
    if known & BIT_RUNNING and not running:
        known = COMPLETE_NEXT[known]
    return {**entry, "pending": False, "state": known}


def check_kept(engine: Interrupts, pe: int, part: Document, shared: list[Document]) -> Kept:
    """What was kept, checked as a state is. Raises `ProtocolError`: it is damaged."""
    if not isinstance(part, dict) or part.keys() != {"masked", "events", "frames"}:
        raise ProtocolError("SDEI state: what was kept must be an object with masked, events, frames")
    kept = checked_part(engine, pe, part, shared)
    if any(plan.pending or plan.inst.slot is not None for plan in kept.instances):
        raise ProtocolError("SDEI state: what was kept is pending, or bound to an interrupt")
    return kept


def put_back(engine: Interrupts, pe: int, part: Document, shared: list[Document]) -> None:
    """A PE has come up: what was kept of it is there again. Raises `ProtocolError`: it is damaged; nothing is done."""
    kept = check_kept(engine, pe, part, shared)
    p = engine._pes[pe]
    for plan in kept.instances:
        inst: Instance = plan.inst
        if inst.state == UNREGISTERED:
            inst.state, inst.entry, inst.argument, inst.target = plan.state, plan.entry, plan.argument, plan.target
    for (inst, words), frame in zip(kept.frames, p.frames, strict=False):
        for index, word in enumerate(words):
            frame[index] = word
        inst.running_on = pe
        p.running.append(inst)
    p.masked = kept.masked
    p.set_gate()
    engine._open(p)
