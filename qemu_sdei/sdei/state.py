"""The complete state of a dispatcher as a document, for crash recovery and migration.

A document from outside is hostile until it has been checked: everything is checked first, and only then taken over.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from qemu_sdei.errors import ProtocolError
from qemu_sdei.sdei.constants import MAX_NESTING, SUCCESS
from qemu_sdei.sdei.context import CONTEXT_WORDS, PSTATE, WORD_MASK, valid_address
from qemu_sdei.sdei.events import ANY_PE, Instance
from qemu_sdei.sdei.pstate import MODE_MASK, CpuFeatures
from qemu_sdei.sdei.report import Document
from qemu_sdei.sdei.transitions import BIT_RUNNING, ENABLED, STATES, TRIGGER_RESULT, UNREGISTERED

if TYPE_CHECKING:
    from qemu_sdei.sdei.engine import Engine
    from qemu_sdei.sdei.interrupts import Interrupts
    from qemu_sdei.sdei.pe import ProcessingElement

FORMAT: Final = "qemu-sdei sdei state"
VERSION: Final = 3
"""No release wrote an older one."""

_TOP: Final = frozenset(("format", "version", "client_el", "features", "profile", "bound", "pes", "shared"))
_PE: Final = frozenset(("affinity", "on", "masked", "frames", "events"))
_FRAME: Final = frozenset(("event", "context"))
_PRIVATE: Final = frozenset(("event", "state", "pending", "entry", "argument"))
_SHARED: Final = _PRIVATE | {"target"}


def snapshot_of(engine: Interrupts) -> Document:
    """See `Dispatcher.snapshot`. Lists and dicts with string keys only: JSON gives back the very same document."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "client_el": engine.client_el,
        "features": asdict(engine.features),
        "profile": _profile(engine),
        "bound": [[number, slot.intid] for number, slot in engine._slots.items() if slot.known],
        "pes": [private_part(engine, pe) for pe in range(len(engine._pes))],
        "shared": shared_part(engine),
    }


def private_part(engine: Engine, pe: int) -> Document:
    """What a snapshot has of one PE."""
    p = engine._pes[pe]
    return {
        "affinity": p.affinity,
        "on": p.on,
        "masked": p.masked,
        "frames": [
            {"event": inst.number, "context": frame.tolist()} for inst, frame in zip(p.running, p.frames, strict=False)
        ],
        "events": [_instance(inst) for inst in p.private.values() if inst.state != UNREGISTERED],
    }


def shared_part(engine: Engine) -> list[Document]:
    """What a snapshot has of shared events."""
    return [
        _instance(inst) | {"target": None if inst.target == ANY_PE else inst.target}
        for inst in engine._shared.values()
        if inst.state != UNREGISTERED
    ]


def _instance(inst: Instance) -> Document:
    return {
        "event": inst.number,
        "state": inst.state,
        "pending": inst.pending,
        "entry": inst.entry,
        "argument": inst.argument,
    }


def _profile(engine: Engine) -> Document:
    """What of the machine description the guest can see: names are for people and may differ."""
    profile = engine.profile
    return {
        "version": list(profile.version),
        "vendor": profile.vendor,
        "slots": list(profile.slots),
        "strict_signal": profile.strict_signal,
        "events": [[e.number, int(e.type), int(e.priority), e.signalable] for e in profile.events],
    }


class _InstancePlan(NamedTuple):
    inst: Instance
    state: int
    pending: bool
    entry: int
    argument: int
    target: int


class _PePlan(NamedTuple):
    on: bool
    masked: bool
    frames: list[tuple[Instance, list[int]]]


class Kept(NamedTuple):
    """Part of a state that has been checked."""

    masked: bool
    frames: list[tuple[Instance, list[int]]]
    instances: list[_InstancePlan]


def checked_part(engine: Interrupts, pe: int, part: Document, shared: list[Document]) -> Kept:
    """`masked`, `frames` and `events` of a PE that is on, and shared events, as a snapshot has them.

    Raises:
        ProtocolError: it is damaged.
    """
    p = engine._pes[pe]
    instances: list[_InstancePlan] = []
    plan = _check_pe(engine, p, {**part, "affinity": p.affinity, "on": True}, instances)
    instances += [_check_instance(engine, entry, engine._shared, _SHARED, "shared") for entry in shared]
    _check_together([*(_PePlan(False, True, []) for _ in range(pe)), plan], instances)
    return Kept(plan.masked, plan.frames, instances)


class _Plan(NamedTuple):
    features: CpuFeatures
    bound: dict[int, int]
    pes: list[_PePlan]
    instances: list[_InstancePlan]


def restore_into(engine: Interrupts, document: object) -> None:
    """See `Dispatcher.restore`."""
    plan = _check(engine, document)
    engine._wipe()
    engine.features = plan.features
    for number, intid in plan.bound.items():
        engine._assign(engine._slots[number], intid)
    for p, pe in zip(engine._pes, plan.pes, strict=True):
        p.on = pe.on
        p.masked = pe.masked
        for (inst, words), frame in zip(pe.frames, p.frames, strict=False):
            for index, word in enumerate(words):
                frame[index] = word
            inst.running_on = p.index
            p.running.append(inst)
        p.set_gate()
    for planned in plan.instances:
        inst = planned.inst
        inst.state = planned.state
        inst.pending = planned.pending
        inst.entry = planned.entry
        inst.argument = planned.argument
        inst.target = planned.target
        if inst.pending and inst.state == ENABLED:
            engine._arm(inst, ANY_PE, ANY_PE)
    for inst in engine._instances():
        inst.count_afresh()
    engine.kicks[:] = sorted(set(engine.kicks))


def _check(engine: Interrupts, document: object) -> _Plan:
    top = _dict(document, _TOP, "document")
    if top["format"] != FORMAT or type(top["version"]) is not int or top["version"] != VERSION:
        raise ProtocolError(f"SDEI state: not a version {VERSION} document of this program")
    if type(top["client_el"]) is not int or top["client_el"] != engine.client_el:
        raise ProtocolError(f"SDEI state: for another client EL than EL{engine.client_el}")
    if not _same(top["profile"], _profile(engine)):
        raise ProtocolError("SDEI state: for another machine description (events, version or slots differ)")
    features = _features(top["features"])
    bound = _check_bound(engine, top["bound"])
    pes = _list(top["pes"], "pes")
    if len(pes) != len(engine._pes):
        raise ProtocolError(f"SDEI state: {len(pes)} PEs, this machine has {len(engine._pes)}")
    pe_plans: list[_PePlan] = []
    instances: list[_InstancePlan] = []
    for p, entry in zip(engine._pes, pes, strict=True):
        pe_plans.append(_check_pe(engine, p, entry, instances))
    for entry in _list(top["shared"], "shared"):
        instances.append(_check_instance(engine, entry, engine._shared, _SHARED, "shared"))
    _check_together(pe_plans, instances)
    for plan in instances:
        if plan.inst.slot is not None and not bound.get(plan.inst.number):
            raise ProtocolError(f"SDEI state: event {plan.inst.number:#x} is registered without a bound interrupt")
    return _Plan(features, bound, pe_plans, instances)


def _check_bound(engine: Interrupts, document: object) -> dict[int, int]:
    """Event number -> INTID, or 0 for a number that was handed out and is free again: each once, and of one type."""
    bound: dict[int, int] = {}
    for entry in _list(document, "bound"):
        pair = _list(entry, "bound")
        if len(pair) != 2 or type(pair[0]) is not int or type(pair[1]) is not int:
            raise ProtocolError("SDEI state: bound: must be pairs of event and interrupt")
        slot = engine._slots.get(pair[0])
        if slot is None or (pair[1] and engine.bindable(pair[1]) != slot.description.type):
            raise ProtocolError("SDEI state: bound: an event that this interrupt cannot be bound to")
        if pair[0] in bound or (pair[1] and pair[1] in bound.values()):
            raise ProtocolError(f"SDEI state: bound: event {pair[0]:#x} or interrupt {pair[1]} is there twice")
        bound[pair[0]] = pair[1]
    return bound


def _check_pe(engine: Engine, p: ProcessingElement, document: object, instances: list[_InstancePlan]) -> _PePlan:
    where = f"PE {p.index}"
    pe = _dict(document, _PE, where)
    if type(pe["affinity"]) is not int or pe["affinity"] != p.affinity:
        raise ProtocolError(f"SDEI state: {where}: another affinity than {p.affinity:#x}")
    plan = _PePlan(
        on=_bool(pe["on"], where),
        masked=_bool(pe["masked"], where),
        frames=[_check_frame(engine, p, frame, where) for frame in _list(pe["frames"], where)],
    )
    private = _list(pe["events"], where)
    for entry in private:
        instances.append(_check_instance(engine, entry, p.private, _PRIVATE, where))
    if not plan.on and (plan.frames or private or not plan.masked):
        raise ProtocolError(f"SDEI state: {where} is off, but not without state")
    if len(plan.frames) > MAX_NESTING:
        raise ProtocolError(f"SDEI state: {where}: more than {MAX_NESTING} handlers")
    if len(plan.frames) == MAX_NESTING and plan.frames[0][0].rank >= plan.frames[1][0].rank:
        raise ProtocolError(f"SDEI state: {where}: a handler on top of one that it cannot preempt")
    return plan


def _check_frame(engine: Engine, p: ProcessingElement, document: object, where: str) -> tuple[Instance, list[int]]:
    frame = _dict(document, _FRAME, where)
    inst = _find(frame["event"], p.private | engine._shared, where)
    words = [_word(word, where) for word in _list(frame["context"], where)]
    if len(words) != CONTEXT_WORDS:
        raise ProtocolError(f"SDEI state: {where}: a context has {CONTEXT_WORDS} words, not {len(words)}")
    if not engine._interruptible[words[PSTATE] & MODE_MASK]:
        raise ProtocolError(f"SDEI state: {where}: PSTATE of a saved context is above the client EL")
    return inst, words


def _check_instance(
    engine: Engine, document: object, known: dict[int, Instance], keys: frozenset[str], where: str
) -> _InstancePlan:
    entry = _dict(document, keys, where)
    inst = _find(entry["event"], known, where)
    where = f"{where}: event {inst.number:#x}"
    state = entry["state"]
    if type(state) is not int or state not in STATES or state == UNREGISTERED:
        raise ProtocolError(f"SDEI state: {where}: not a state that an event can be in")
    pending = _bool(entry["pending"], where)
    if pending and TRIGGER_RESULT[state] != SUCCESS:
        raise ProtocolError(f"SDEI state: {where}: pending without being registered")
    address = _word(entry["entry"], where)
    if not valid_address(address):
        raise ProtocolError(f"SDEI state: {where}: not an entry point")
    target = inst.pe
    if inst.shared and entry["target"] is not None:
        target = entry["target"]
        if type(target) is not int or not 0 <= target < len(engine._pes):
            raise ProtocolError(f"SDEI state: {where}: routed to a PE that does not exist")
    return _InstancePlan(inst, state, pending, address, _word(entry["argument"], where), target)


def _check_together(pes: list[_PePlan], instances: list[_InstancePlan]) -> None:
    """Each event once; handlers and running bits are of one mind; a routed event runs where it is routed to."""
    running: dict[Instance, int] = {}
    for index, pe in enumerate(pes):
        for inst, _ in pe.frames:
            if inst in running:
                raise ProtocolError(f"SDEI state: event {inst.number:#x} runs twice")
            running[inst] = index
    seen: set[Instance] = set()
    for plan in instances:
        inst = plan.inst
        if inst in seen:
            raise ProtocolError(f"SDEI state: event {inst.number:#x} is there twice")
        seen.add(inst)
        on = running.pop(inst, ANY_PE)
        if (on != ANY_PE) is not bool(plan.state & BIT_RUNNING):
            raise ProtocolError(f"SDEI state: event {inst.number:#x}: its state and the saved contexts contradict")
        if on != ANY_PE and plan.target not in (ANY_PE, on):
            raise ProtocolError(f"SDEI state: event {inst.number:#x} runs on a PE that it is not routed to")
    for inst in running:
        raise ProtocolError(f"SDEI state: event {inst.number:#x} runs without being registered")


def _same(value: object, known: object) -> bool:
    """Equal, and of the same types: true and 1.0 are no 1."""
    if type(value) is not type(known) or value != known:
        return False
    if isinstance(known, dict) and isinstance(value, dict):
        return all(_same(value[key], known[key]) for key in known)
    if isinstance(known, list) and isinstance(value, list):
        return all(_same(one, other) for one, other in zip(value, known, strict=True))
    return True


def _features(document: object) -> CpuFeatures:
    names = [field.name for field in fields(CpuFeatures)]
    entry = _dict(document, frozenset(names), "features")
    return CpuFeatures(**{name: _bool(entry[name], "features") for name in names})


def _find(number: object, known: dict[int, Instance], where: str) -> Instance:
    inst = known.get(number) if type(number) is int else None
    if inst is None:
        raise ProtocolError(f"SDEI state: {where}: an event that this machine does not have there")
    return inst


def _dict(value: object, keys: frozenset[str], where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != keys:
        raise ProtocolError(f"SDEI state: {where}: must be an object with {', '.join(sorted(keys))}")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ProtocolError(f"SDEI state: {where}: a list is missing")
    return value


def _bool(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ProtocolError(f"SDEI state: {where}: true or false is missing")
    return value


def _word(value: object, where: str) -> int:
    if type(value) is not int or not 0 <= value <= WORD_MASK:
        raise ProtocolError(f"SDEI state: {where}: a 64-bit word is missing")
    return value
