"""What holds between any two frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.sdei.events import ANY_PE
from qemu_sdei.sdei.pe import ProcessingElement
from qemu_sdei.sdei.transitions import BIT_RUNNING, ENABLED, STATES


def any_armed(pes: Iterable[ProcessingElement]) -> bool:
    """A private event waits somewhere."""
    for p in pes:  # noqa: SIM110 - a generator would cost more than all the rest
        if p.armed:
            return True
    return False


def check_attention(dispatcher: Dispatcher, comes: Callable[[int], bool]) -> None:
    """What is deliverable is being delivered: of one PE that could take it, `comes` holds."""
    for p in dispatcher._pes:
        if p.armed and p.armed[0].rank > p.gate:
            assert comes(p.index), f"event {p.armed[0].number:#x} lies about on PE {p.index}"
    for inst in dispatcher._shared_armed:
        able = [p.index for p in dispatcher._pes if p.gate < inst.rank and inst.target in (ANY_PE, p.index)]
        assert not able or any(map(comes, able)), f"shared event {inst.number:#x} lies about; PEs {able} could take it"


def scan(dispatcher: Dispatcher) -> None:
    """All of the state, slowly."""
    running = [inst for p in dispatcher._pes for inst in p.running]
    assert len(set(map(id, running))) == len(running), "an instance runs twice"
    for inst in dispatcher._instances():
        name = f"event {inst.number:#x} of PE {inst.pe}, state {inst.state}"
        assert inst.state in STATES, name
        assert inst.armed is (inst.pending and inst.state == ENABLED), f"{name}: armed is {inst.armed}"
        counts = (inst.merged, inst.dropped, inst.delivered, int(inst.pending))
        assert inst.accepted == sum(counts), f"{name}: of {inst.accepted} triggers {counts}"
        assert bool(inst.state & BIT_RUNNING) is (inst in running), f"{name}: runs, or does not"
    for p in dispatcher._pes:
        assert [inst.rank for inst in p.running] in ([], [1], [2], [1, 2]), f"PE {p.index}: nesting"
        gate = p.gate
        p.set_gate()
        assert p.gate == gate, f"PE {p.index}: gate {gate}"
