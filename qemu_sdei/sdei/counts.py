"""What became of the triggers of each event, as data that outlives a backend.

They are not part of the state (`state.py`): nothing that the guest can see depends on them, and documents of older
programs have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_sdei.errors import ProtocolError
from qemu_sdei.sdei.events import Instance

if TYPE_CHECKING:
    from qemu_sdei.sdei.engine import Engine

MAX_COUNT: Final = (1 << 63) - 1
_FORM: Final = "event, PE (-1 for a shared one), accepted, merged, dropped, delivered"


def counts_of(engine: Engine) -> list[list[int]]:
    """[event, PE (-1 for a shared event), accepted, merged, dropped, delivered] of each event that had a trigger."""
    return [
        [inst.number, inst.pe, inst.accepted, inst.merged, inst.dropped, inst.delivered]
        for inst in engine._instances()
        if inst.accepted
    ]


def restore_counts_into(engine: Engine, document: object) -> None:
    """See `Engine.restore_counts`.

    An event that was made pending, or not pending any more, since the counts were taken (KVM's registers do that) was
    triggered, or its trigger dropped, by whoever did it.
    """
    known = {(inst.number, inst.pe): inst for inst in engine._instances()}
    plan: dict[Instance, list[int]] = {}
    if not isinstance(document, list):
        raise ProtocolError("SDEI counts: a list is missing")
    for entry in document:
        if not isinstance(entry, list) or len(entry) != 6 or not all(type(number) is int for number in entry):
            raise ProtocolError(f"SDEI counts: each must be a list of numbers: {_FORM}")
        inst = known.get((entry[0], entry[1]))
        if inst is None or inst in plan:
            raise ProtocolError("SDEI counts: an event that this machine does not have there, or twice")
        accepted, *rest = entry[2:]
        if not all(0 <= number <= MAX_COUNT for number in entry[2:]) or accepted - sum(rest) not in (0, 1):
            raise ProtocolError(f"SDEI counts: event {inst.number:#x}: accepted must be the others and what is pending")
        plan[inst] = entry[2:]
    for inst, (accepted, merged, dropped, delivered) in plan.items():
        was = accepted - merged - dropped - delivered
        inst.accepted = accepted + (inst.pending and not was)
        inst.merged = merged
        inst.dropped = dropped + (was and not inst.pending)
        inst.delivered = delivered
