"""Delivery: pending bits, priorities, gates, routing and power (DEN0054 4.3, 6.1, 6.2, 6.5).

The guest's calls are in `dispatcher.py`.

How it stays cheap: what could be delivered at all (pending, enabled, not running) stands *armed* in a list of its PE,
or in the list of armed shared events; both are nearly always empty. A PE takes an armed instance iff its rank is above
the PE's gate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.sdei.constants import AFFINITY_MASK
from qemu_sdei.sdei.context import PSTATE, WHOLE, Regs
from qemu_sdei.sdei.counts import counts_of, restore_counts_into
from qemu_sdei.sdei.events import ANY_PE, EventType, Instance, Slot, by_order
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.sdei.pe import CLOSED, ProcessingElement
from qemu_sdei.sdei.pstate import ARMV8_0, MODE_MASK, CpuFeatures, entry_pstate, interruptible_modes
from qemu_sdei.sdei.transitions import (
    ACTION_NAMES,
    COMPLETE_NEXT,
    DISPATCH_NEXT,
    ENABLED,
    STEP,
    UNREGISTERED,
    Action,
    Latch,
)

_NAME_DISPATCH: Final = ACTION_NAMES[Action.DISPATCH]
_NAME_COMPLETE: Final = ACTION_NAMES[Action.COMPLETE]
_KEEP: Final = int(Latch.KEEP)
_SET: Final = int(Latch.SET)

TransitionHook = Callable[[int, int, int, int, str], None]
"""(event, pe, old state, new state, cause): cause is the name of an `Action`, or "RESET"."""


class Engine:
    """State of all PEs and events, and what moves events to handlers. Pure: no I/O, no clock, deterministic."""

    __slots__ = (
        "_entry",
        "_features",
        "_interruptible",
        "_pe_of_affinity",
        "_pes",
        "_shared",
        "_shared_armed",
        "_slots",
        "attention",
        "client_el",
        "interrupts",
        "kicks",
        "on_transition",
        "on_waiting",
        "profile",
        "resume",
    )

    def __init__(
        self,
        profile: MachineDescription,
        affinities: Sequence[int],
        *,
        client_el: int = 1,
        features: CpuFeatures = ARMV8_0,
    ) -> None:
        """One PE per affinity (MPIDR form; other bits are ignored), in this order; all off and masked.

        Raises:
            UsageError: no PE, two PEs of one affinity, or a client EL other than 1 and 2.
        """
        if client_el not in (1, 2):
            raise UsageError(f"client EL {client_el}: SDEI's client runs at EL1 or EL2")
        masked = [affinity & AFFINITY_MASK for affinity in affinities]
        if not masked:
            raise UsageError("SDEI needs at least one PE")
        if len(set(masked)) != len(masked):
            raise UsageError("two PEs have the same affinity")
        self.profile: Final = profile
        self.client_el: Final = client_el
        self.attention: Final = bytearray(len(masked))
        """One byte per PE; 0: nothing is deliverable there. Not 0: `dispatch` is worth calling."""
        self.kicks: Final[list[int]] = []
        """PEs other than the caller on which something became deliverable: the owner interrupts them and clears it."""
        self.interrupts: Final[list[tuple[int, int]]] = []
        """(INTID, PE or ANY_PE for an SPI) of bound interrupts of which the GIC may now have to be told something: the
        owner asks `wanted` for each, and clears the list."""
        self.resume: tuple[int, int] | None = None
        """(ELR_ELc, SPSR_ELc) that a COMPLETE_AND_RESUME wants written to the CPU: the owner asks `take_resume` in the
        same frame, before `dispatch`."""
        self.on_transition: TransitionHook | None = None
        self.on_waiting: Callable[[int, int], None] | None = None
        """Called with (event, PE; ANY_PE for a shared event) when one became pending that no PE can take now."""
        self._interruptible: Final = interruptible_modes(client_el)
        self._features = features
        self._entry = entry_pstate(self._features, client_el)
        self._pe_of_affinity: Final = {affinity: index for index, affinity in enumerate(masked)}
        slots = profile.slot_events()
        self._slots: Final = {e.number: Slot(e) for e in slots}
        events = profile.events + slots
        self._shared: Final = {
            e.number: Instance(e, ANY_PE, self._slots.get(e.number)) for e in events if e.type == EventType.SHARED
        }
        self._shared_armed: list[Instance] = []
        self._pes: Final = tuple(
            ProcessingElement(index, affinity, events, self._slots, self._shared)
            for index, affinity in enumerate(masked)
        )

    @property
    def features(self) -> CpuFeatures:
        """What the CPUs have. May be set when it becomes known (ID registers come with the first RESET frame)."""
        return self._features

    @features.setter
    def features(self, features: CpuFeatures) -> None:
        self._features = features
        self._entry = entry_pstate(features, self.client_el)

    @property
    def affinities(self) -> tuple[int, ...]:
        """Affinity of each PE, in MPIDR form."""
        return tuple(p.affinity for p in self._pes)

    def running(self, pe: int) -> tuple[int, ...]:
        """Events whose handlers run on `pe`, the innermost last."""
        return tuple(inst.number for inst in self._pes[pe].running)

    def interrupted(self, pe: int) -> Regs | None:
        """What the innermost handler that runs on `pe` has interrupted (a view: copy what is to be kept); None if none
        runs.
        """
        p = self._pes[pe]
        return p.frames[len(p.running) - 1] if p.running else None

    # --- delivery ----------------------------------------------------------------------------------------------------

    def dispatch(self, pe: int, regs: Regs, sctlr: int, hcr_el2: int) -> int | None:
        """Start the handler of the event that is deliverable on `pe` now, if there is one (DEN0054 6.1, 5.2.1).

        The owner calls it once after each frame of that PE, when `regs` hold what the guest would go on with: the
        result of a call already in x0, PC behind the call. They are saved and replaced by the handler's entry state.

        Args:
            pe: PE number.
            regs: the PE's registers, edited in place.
            sctlr: SCTLR of the client EL.
            hcr_el2: HCR_EL2, 0 if there is no EL2.

        Returns:
            The event's number, or None if nothing is to be delivered.
        """
        p = self._pes[pe]
        # As `_best`, which is called only where shared events are armed: the call costs as much as all of this.
        armed = p.armed
        best = self._best(p) if self._shared_armed else armed[0] if armed and armed[0].rank > p.gate else None
        if best is None:
            self.attention[pe] = 0
            return None
        running = p.running
        saved = p.frames[len(running)]
        saved[WHOLE] = regs  # all at once: what is checked is what is kept, whoever else may write into the frame
        pstate = saved[PSTATE]
        if not self._interruptible[pstate & MODE_MASK]:
            return None  # above the client EL, or an AArch32 client: attention stays, a later frame will do
        regs[4] = saved[0]
        regs[5] = pstate
        regs[0] = best.entry
        regs[1] = self._entry(pstate, sctlr, hcr_el2)
        regs[2] = number = best.number
        regs[3] = best.argument
        running.append(best)
        p.gate = best.rank
        self.attention[pe] = 0  # what is left ranks no higher than the handler that starts
        old = best.state
        best.state = DISPATCH_NEXT[old]
        best.pending = best.armed = False
        best.delivered += 1
        best.running_on = pe
        if best.shared:
            self._shared_armed.remove(best)
        else:
            del armed[0]  # of its own it takes the first one only
        if self._shared_armed:
            self._hand_over(p)
        hook = self.on_transition
        if hook is not None:
            hook(number, pe, old, best.state, _NAME_DISPATCH)
        return number

    def take_resume(self, regs: Regs, sctlr: int, hcr_el2: int) -> tuple[int, int]:
        """The second half of COMPLETE_AND_RESUME (5.2.2): PSTATE, by what SCTLR_ELc and HCR_EL2 are now.

        The handler may have changed them since it was entered, and an exception goes by what they are when it is taken.

        Returns:
            What the owner writes to (ELR_ELc, SPSR_ELc).
        """
        resume = self.resume
        if resume is None:
            raise ValueError("no COMPLETE_AND_RESUME is under way")
        self.resume = None
        regs[PSTATE] = self._entry(resume[1], sctlr, hcr_el2)
        return resume

    def _best(self, p: ProcessingElement) -> Instance | None:
        """The instance that `p` would take now: critical before normal, then the lowest number."""
        best = p.armed[0] if p.armed and p.armed[0].rank > p.gate else None
        for inst in self._shared_armed:
            if inst.rank <= p.gate or (best is not None and best.order < inst.order):
                break
            if inst.target == ANY_PE or inst.target == p.index:
                return inst
        return best

    def _complete_innermost(self, p: ProcessingElement) -> None:
        """The innermost handler of `p` ends: state, gate, what may follow. The context is the caller's business."""
        running = p.running
        inst = running.pop()
        if p.gate != CLOSED:  # as `set_gate`, without a call
            p.gate = running[-1].rank if running else 0
        old = inst.state
        inst.state = new = COMPLETE_NEXT[old]
        inst.running_on = ANY_PE
        if inst.slot is not None:
            self.interrupts.append((inst.slot.intid, inst.pe))
        if inst.pending and new == ENABLED:
            self._arm(inst, p.index, p.index)
        if p.armed or self._shared_armed:
            self._open(p)
        hook = self.on_transition
        if hook is not None:
            hook(inst.number, p.index, old, new, _NAME_COMPLETE)

    # --- arming and gates --------------------------------------------------------------------------------------------

    def _arm(self, inst: Instance, caller: int, prefer: int) -> None:
        """`inst` became pending, enabled and not running: list it, and see to it that a PE comes and takes it.

        `caller` is in an exchange and needs no kick (ANY_PE: nobody is); `prefer` is taken for an RM_ANY event if it is
        eligible.
        """
        inst.armed = True
        armed = self._shared_armed if inst.shared else self._pes[inst.pe].armed
        armed.append(inst)
        if len(armed) > 1:
            armed.sort(key=by_order)
        target = inst.target
        if target == ANY_PE:
            rank = inst.rank
            if prefer == ANY_PE or self._pes[prefer].gate >= rank:
                prefer = ANY_PE
            attention = self.attention
            for p in self._pes:
                if p.gate < rank:
                    attention[p.index] = 1
                    if prefer == ANY_PE:
                        prefer = p.index
            inst.asked = target = prefer
            if target == ANY_PE:
                self._waits(inst)  # the first PE that opens its gate will take it
                return
        elif self._pes[target].gate >= inst.rank:
            self._waits(inst)
            return
        self.attention[target] = 1
        if target != caller:
            self.kicks.append(target)

    def _waits(self, inst: Instance) -> None:
        """`inst` is pending, and no PE can take it now."""
        if self.on_waiting is not None:
            self.on_waiting(inst.number, ANY_PE if inst.shared else inst.pe)

    def _disarm(self, inst: Instance) -> None:
        """`inst` is not to be delivered any more. The attention that it got goes out at the next `dispatch`."""
        inst.armed = False
        (self._shared_armed if inst.shared else self._pes[inst.pe].armed).remove(inst)

    def _open(self, p: ProcessingElement) -> None:
        """The gate of `p` (the caller) may have opened: attention, if something is deliverable."""
        self.attention[p.index] = self._best(p) is not None

    def _hand_over(self, p: ProcessingElement) -> None:
        """The gate of `p` closed: RM_ANY events that it was to take go to another eligible PE (DEN0054 6.2.1)."""
        for inst in self._shared_armed:
            if inst.asked == p.index and inst.target == ANY_PE:
                inst.asked = ANY_PE
                for other in self._pes:
                    if other.gate < inst.rank:
                        inst.asked = other.index
                        self.attention[other.index] = 1
                        self.kicks.append(other.index)
                        break

    def _apply(self, inst: Instance, action: int, pe: int) -> int:
        """Do what the table says for `action` (an `Action`), called on `pe`; returns the result code."""
        old = inst.state
        result, new, latch = STEP[action][old]
        if latch != _KEEP:
            inst.dropped += inst.pending and latch != _SET
            inst.pending = latch == _SET
        inst.state = new
        if (inst.pending and new == ENABLED) is not inst.armed:
            if inst.armed:
                self._disarm(inst)
            else:
                self._arm(inst, pe, pe)
        if new != old:
            if inst.slot is not None and UNREGISTERED in (old, new):
                self.interrupts.append((inst.slot.intid, inst.pe))
            hook = self.on_transition
            if hook is not None:
                hook(inst.number, pe, old, new, ACTION_NAMES[action])
        return result

    # --- mask and power ----------------------------------------------------------------------------------------------

    def _mask(self, p: ProcessingElement) -> None:
        p.masked = True
        p.gate = CLOSED
        self.attention[p.index] = 0
        if self._shared_armed:
            self._hand_over(p)

    def power_on(self, pe: int) -> None:
        """CPU_ON, or the boot CPU out of reset: masked, no private event registered (DEN0054 6.5.1, 6.5.2)."""
        self.power_off(pe)
        self._pes[pe].on = True

    def power_off(self, pe: int) -> None:
        """CPU_OFF: handlers complete implicitly (6.5.4), private events are gone, RM_ANY events go elsewhere."""
        p = self._pes[pe]
        p.on = False
        self._mask(p)
        while p.running:
            self._complete_innermost(p)
        for inst in p.private.values():
            if inst.state != UNREGISTERED:
                self._apply(inst, Action.PE_RESET, pe)
                inst.clear()

    def suspended(self, pe: int) -> None:
        """Wake-up from a CPU_SUSPEND that powered the PE down: masked; all else is kept (6.5.2, ACS45)."""
        self._mask(self._pes[pe])

    def reset(self) -> None:
        """System reset: nothing is registered, running, pending or bound; every PE is off and masked."""
        hook = self.on_transition
        if hook is not None:
            for inst in self._instances():
                if inst.state != UNREGISTERED:
                    hook(inst.number, inst.running_on if inst.shared else inst.pe, inst.state, UNREGISTERED, "RESET")
        self._wipe()

    def _instances(self) -> list[Instance]:
        return [inst for p in self._pes for inst in p.private.values()] + list(self._shared.values())

    def _wipe(self) -> None:
        """Everything as the constructor left it. The lists that the owner holds stay the same objects."""
        for p in self._pes:
            p.on = False
            p.masked = True
            p.gate = CLOSED
            p.running.clear()
            p.armed.clear()
            p.forget_slots()
        for inst in self._instances():
            inst.clear()
        for slot in self._slots.values():
            slot.intid = 0
            slot.known = False
        self.interrupts.clear()
        self._shared_armed.clear()
        self.attention[:] = bytes(len(self._pes))
        self.kicks.clear()
        self.resume = None

    # --- counts -------------------------------------------------------------------------------------------------------

    def counts(self) -> list[list[int]]:
        """What became of the triggers of each event that had any: see `counts.py`."""
        return counts_of(self)

    def restore_counts(self, document: object) -> None:
        """Take `counts`, after `restore`, which begins to count afresh.

        Raises:
            ProtocolError: they are damaged or contradict themselves; nothing is changed then.
        """
        restore_counts_into(self, document)
