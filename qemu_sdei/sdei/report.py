"""What a person wants to know of a dispatcher: how everything stands, and why an event is not delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from qemu_sdei.sdei.events import ANY_PE, Instance
from qemu_sdei.sdei.transitions import (
    BIT_ENABLED,
    BIT_REGISTERED,
    BIT_RUNNING,
    STATE_NAMES,
    UNREGISTER_PENDING,
)

if TYPE_CHECKING:
    from qemu_sdei.sdei.engine import Engine
    from qemu_sdei.sdei.interrupts import Interrupts
    from qemu_sdei.sdei.pe import ProcessingElement

Document = dict[str, Any]


def status_of(engine: Interrupts) -> Document:
    """See `Dispatcher.status`."""
    return {
        "version": "{}.{}".format(*engine.profile.version),
        "client_el": engine.client_el,
        "pes": [
            {
                "pe": p.index,
                "affinity": p.affinity,
                "on": p.on,
                "masked": p.masked,
                "running": [inst.number for inst in p.running],
            }
            for p in engine._pes
        ],
        "events": [
            {
                "event": event.number,
                "name": event.name,
                "type": event.type.name.lower(),
                "priority": event.priority.name.lower(),
                "signalable": event.signalable,
                "instances": [
                    _instance(engine, inst)
                    for inst in (
                        [engine._shared[event.number]]
                        if event.number in engine._shared
                        else [p.private[event.number] for p in engine._pes]
                    )
                ],
            }
            | ({"intid": engine._slots[event.number].intid} if event.number in engine._slots else {})
            for event in engine.events()
        ],
    }


def _instance(engine: Engine, inst: Instance) -> Document:
    waits = obstacle(engine, inst, ANY_PE) if inst.pending else None
    document: Document = {
        "pe": None if inst.shared else inst.pe,
        "state": STATE_NAMES[inst.state],
        "registered": bool(inst.state & BIT_REGISTERED),
        "enabled": bool(inst.state & BIT_ENABLED),
        "running": bool(inst.state & BIT_RUNNING),
        "pending": inst.pending,
        "waits": None if waits is None else waits.why,
        "triggers": {
            "accepted": inst.accepted,
            "merged": inst.merged,
            "dropped": inst.dropped,
            "delivered": inst.delivered,
        },
    }
    if inst.shared:
        document["routed_to"] = None if inst.target == ANY_PE else inst.target
        document["running_on"] = None if inst.running_on == ANY_PE else inst.running_on
    return document


class Obstacle(NamedTuple):
    """What stands between an event and its handler."""

    reason: str
    """In a word: "off", "unregistered", "disabled", "running", "masked", "behind"."""
    why: str
    """In a sentence."""


def obstacle(engine: Engine, inst: Instance, pe: int) -> Obstacle | None:
    """What stands between `inst` and its handler; None if nothing does or nothing is pending.

    `pe` says for an RM_ANY event which PE is meant (ANY_PE: all of them); otherwise it is the instance's own.
    """
    name = f"event {inst.number:#x} ({inst.description.name})"
    if not inst.shared and not engine._pes[inst.pe].on:
        return Obstacle("off", f"PE {inst.pe} is off")
    if not inst.state & BIT_REGISTERED:
        where = "" if inst.shared else f" on PE {inst.pe}"
        if inst.state == UNREGISTER_PENDING:
            why = f"{name} is being unregistered: its handler still runs on PE {inst.running_on}"
            return Obstacle("running", why)
        return Obstacle("unregistered", f"{name} is not registered{where}")
    if not inst.pending:
        return None
    if not inst.state & BIT_ENABLED:
        return Obstacle("disabled", f"{name} is registered but disabled")
    if inst.state & BIT_RUNNING:
        return Obstacle("running", f"{name} waits for its own handler, which still runs on PE {inst.running_on}")
    if inst.target != ANY_PE:
        return _pe_obstacle(engine, engine._pes[inst.target], inst, name)
    if any(p.gate < inst.rank for p in engine._pes):
        return None
    if pe != ANY_PE:
        return _pe_obstacle(engine, engine._pes[pe], inst, name)
    if all(p.masked or not p.on for p in engine._pes):
        return Obstacle("masked", f"{name} waits: every PE is masked or off")
    return Obstacle("behind", f"{name} waits: a handler runs on every PE that is not masked or off")


def unheard(engine: Engine, inst: Instance, pe: int) -> Obstacle | None:
    """Why nobody would hear of `inst` if it were triggered now; None: its handler would run, now or when another one
    has ended. `pe`: as for `obstacle`.
    """
    name = f"event {inst.number:#x} ({inst.description.name})"
    if not inst.pending and (found := obstacle(engine, inst, pe)) is not None:
        return found
    if not inst.state & BIT_REGISTERED:
        return Obstacle("unregistered", f"{name} is not registered")
    if not inst.state & BIT_ENABLED:
        return Obstacle("disabled", f"{name} is registered but disabled")
    takers = engine._pes if inst.target == ANY_PE else [engine._pes[inst.target]]
    if any(p.on and not p.masked for p in takers):
        return None
    if len(takers) > 1:
        return Obstacle("masked", f"{name}: every PE is masked or off")
    return Obstacle("masked", f"{name}: PE {takers[0].index} is {'masked' if takers[0].on else 'off'}")


def _pe_obstacle(engine: Engine, p: ProcessingElement, inst: Instance, name: str) -> Obstacle | None:
    if not p.on:
        return Obstacle("off", f"{name} waits: PE {p.index} is off")
    if p.masked:
        return Obstacle("masked", f"{name} waits: PE {p.index} is masked")
    if p.gate >= inst.rank:
        running = p.running[-1]
        return Obstacle(
            "behind",
            f"{name} waits behind event {running.number:#x} ({running.description.name}), "
            f"whose handler runs on PE {p.index}",
        )
    best = engine._best(p)
    if best is not None and best is not inst:
        return Obstacle(
            "behind",
            f"{name} waits behind event {best.number:#x} ({best.description.name}), "
            f"which is delivered first on PE {p.index}",
        )
    return None
