"""The SDEI interface: the guest's calls, and the host's triggers (DEN0054 5.1).

A handler is called with (pe, regs) and finds its arguments in `regs`. It returns what the owner writes into x0, or None
when the call does not return to its caller; it never writes x0 itself. Then the owner calls `dispatch`: so a call that
opens the way for an event is finished, result and all, before the event's handler interrupts it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import Final

from qemu_sdei.errors import NotDeliveredError, UsageError
from qemu_sdei.sdei.constants import (
    AFFINITY_MASK,
    DENIED,
    FLAG_RM_PE,
    INVALID_PARAMETERS,
    NOT_SUPPORTED,
    RM_ANY,
    RM_PE,
    SUCCESS,
    W_MASK,
    Feature,
    Function,
    Info,
)
from qemu_sdei.sdei.context import PC, PSTATE, WHOLE, X0, Regs, valid_address
from qemu_sdei.sdei.events import ANY_PE, EventType, Instance
from qemu_sdei.sdei.interrupts import MAX_INTID, Interrupts
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.sdei.pstate import ARMV8_0, EL_MASK, CpuFeatures
from qemu_sdei.sdei.report import Document, Obstacle, obstacle, status_of, unheard
from qemu_sdei.sdei.state import restore_into, snapshot_of
from qemu_sdei.sdei.transitions import (
    BIT_ENABLED,
    BIT_REGISTERED,
    BIT_RUNNING,
    ENABLED,
    TRIGGER_RESULT,
    UNREGISTERED,
    Action,
)

Handler = Callable[[int, Regs], "int | None"]

_X1: Final = X0 + 1
_X2: Final = X0 + 2
_CONTEXT_REGISTERS: Final = 18
# As numbers: to find a member of an enumeration takes as long as to read three registers.
_ENABLE: Final = int(Action.ENABLE)
_DISABLE: Final = int(Action.DISABLE)


class Trigger(Enum):
    """What became of a trigger."""

    QUEUED = "queued"
    MERGED = "merged"
    """It was pending already: one delivery answers both (DEN0054 5.1.16.1)."""


class Dispatcher(Interrupts):
    """SDEI for one guest. `Engine` documents what the owner reads (`attention`, `kicks`, `resume`) and `dispatch`."""

    __slots__ = ("_client", "_features_word", "_relative_mode", "_strict_signal", "_version", "handlers")

    def __init__(
        self,
        profile: MachineDescription,
        affinities: Sequence[int],
        *,
        client_el: int = 1,
        features: CpuFeatures = ARMV8_0,
        max_intid: int = MAX_INTID,
        reserved_intids: Collection[int] = (),
    ) -> None:
        """See `Engine.__init__` and `Interrupts.__init__`."""
        super().__init__(
            profile,
            affinities,
            client_el=client_el,
            features=features,
            max_intid=max_intid,
            reserved_intids=reserved_intids,
        )
        self._client: Final = client_el << 2
        major, minor = profile.version
        self._version: Final = major << 48 | minor << 32 | profile.vendor
        self._features_word: Final = profile.slots[1] << 16 | profile.slots[0]
        self._relative_mode: Final = 0 if profile.version >= (1, 1) else INVALID_PARAMETERS
        self._strict_signal: Final = profile.strict_signal
        self.handlers: Final[dict[int, Handler]] = {
            int(Function.VERSION): self._do_version,
            int(Function.EVENT_REGISTER): self._do_register,
            int(Function.EVENT_ENABLE): self._do_enable,
            int(Function.EVENT_DISABLE): self._do_disable,
            int(Function.EVENT_CONTEXT): self._do_context,
            int(Function.EVENT_COMPLETE): self._do_complete,
            int(Function.EVENT_COMPLETE_AND_RESUME): self._do_complete_and_resume,
            int(Function.EVENT_UNREGISTER): self._do_unregister,
            int(Function.EVENT_STATUS): self._do_status,
            int(Function.EVENT_GET_INFO): self._do_get_info,
            int(Function.EVENT_ROUTING_SET): self._do_routing_set,
            int(Function.PE_MASK): self._do_pe_mask,
            int(Function.PE_UNMASK): self._do_pe_unmask,
            int(Function.INTERRUPT_BIND): self._do_interrupt_bind,
            int(Function.INTERRUPT_RELEASE): self._do_interrupt_release,
            int(Function.EVENT_SIGNAL): self._do_signal,
            int(Function.FEATURES): self._do_features,
            int(Function.PRIVATE_RESET): self._do_private_reset,
            int(Function.SHARED_RESET): self._do_shared_reset,
        }
        """What answers each function id."""

    # --- the guest's calls. Each begins with: only the client EL, in AArch64, is served (DEN0054 4.1) ----------------

    def _do_version(self, pe: int, regs: Regs) -> int | None:
        return self._version if regs[PSTATE] & EL_MASK == self._client else NOT_SUPPORTED

    def _do_register(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        inst = self._pes[pe].instances.get(regs[_X1] & W_MASK)
        entry = regs[_X2]
        flags = regs[X0 + 4]
        if inst is None or not valid_address(entry) or flags & ~FLAG_RM_PE:
            return INVALID_PARAMETERS
        target = ANY_PE
        affinity = regs[X0 + 5] & AFFINITY_MASK
        if flags & FLAG_RM_PE and inst.shared:  # a private event is routed to its PE, whatever the flags say
            target = self._pe_of_affinity.get(affinity, ANY_PE)
            if target == ANY_PE:
                return INVALID_PARAMETERS
        if inst.slot is not None and not inst.slot.intid:
            return DENIED
        result = self._apply(inst, Action.REGISTER, pe)
        if result == SUCCESS:
            inst.entry = entry
            inst.argument = regs[X0 + 3]
            if inst.shared:
                inst.target = target
        return result

    def _do_enable(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        inst = self._pes[pe].instances.get(regs[_X1] & W_MASK)
        return INVALID_PARAMETERS if inst is None else self._apply(inst, _ENABLE, pe)

    def _do_disable(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        inst = self._pes[pe].instances.get(regs[_X1] & W_MASK)
        return INVALID_PARAMETERS if inst is None else self._apply(inst, _DISABLE, pe)

    def _do_unregister(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        inst = self._pes[pe].instances.get(regs[_X1] & W_MASK)
        return INVALID_PARAMETERS if inst is None else self._apply(inst, Action.UNREGISTER, pe)

    def _do_context(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        index = regs[_X1] & W_MASK
        if index >= _CONTEXT_REGISTERS:
            return INVALID_PARAMETERS
        p = self._pes[pe]
        depth = len(p.running)
        return p.frames[depth - 1][X0 + index] if depth else DENIED

    def _do_complete(self, pe: int, regs: Regs) -> int | None:
        """The status in x1 has no meaning to the dispatcher: every value completes."""
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        p = self._pes[pe]
        depth = len(p.running)
        if not depth:
            return DENIED
        regs[WHOLE] = p.frames[depth - 1]
        self._complete_innermost(p)
        return None

    def _do_complete_and_resume(self, pe: int, regs: Regs) -> int | None:
        """As if an exception had been taken from the interrupted context, with x1 in place of the vector (5.2.2).

        PSTATE is left to `take_resume`.
        """
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        p = self._pes[pe]
        depth = len(p.running)
        address = regs[_X1]
        if not depth or not valid_address(address):
            return DENIED
        frame = p.frames[depth - 1]
        self.resume = (frame[PC], frame[PSTATE])
        regs[WHOLE] = frame
        regs[PC] = address
        self._complete_innermost(p)
        return None

    def _do_status(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        inst = self._pes[pe].instances.get(regs[_X1] & W_MASK)
        if inst is None:
            return INVALID_PARAMETERS
        if inst.slot is not None and inst.slot.intid in self.settling:
            return inst.state | BIT_RUNNING
        return inst.state

    def _do_get_info(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        inst = self._pes[pe].instances.get(regs[_X1] & W_MASK)
        if inst is None:
            return INVALID_PARAMETERS
        info = regs[_X2] & W_MASK
        if info == Info.TYPE:
            return int(inst.shared)
        if info == Info.SIGNALABLE:
            return int(not inst.signalable)
        if info == Info.PRIORITY:
            return inst.rank - 1
        if info not in (Info.ROUTING_MODE, Info.ROUTING_AFFINITY) or not inst.shared:
            return INVALID_PARAMETERS
        if not inst.state & BIT_REGISTERED:
            return DENIED
        if info == Info.ROUTING_MODE:
            return RM_ANY if inst.target == ANY_PE else RM_PE
        return INVALID_PARAMETERS if inst.target == ANY_PE else self._pes[inst.target].affinity

    def _do_routing_set(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        inst = self._pes[pe].instances.get(regs[_X1] & W_MASK)
        mode = regs[_X2]
        if inst is None or not inst.shared or mode not in (RM_ANY, RM_PE):
            return INVALID_PARAMETERS
        if inst.slot is not None and not inst.slot.intid:
            return INVALID_PARAMETERS
        target = ANY_PE
        if mode == RM_PE:
            target = self._pe_of_affinity.get(regs[X0 + 3] & AFFINITY_MASK, ANY_PE)
            if target == ANY_PE:
                return INVALID_PARAMETERS
        result = self._apply(inst, Action.ROUTING_SET, pe)
        if result == SUCCESS:
            inst.target = target
        return result

    def _do_pe_mask(self, pe: int, regs: Regs) -> int | None:
        """1 iff this call masked the PE. A running handler goes on; nothing new starts, critical or not (5.2.1.2)."""
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        p = self._pes[pe]
        if p.masked:
            return 0
        self._mask(p)
        return 1

    def _do_pe_unmask(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        p = self._pes[pe]
        p.masked = False
        p.set_gate()
        if p.armed or self._shared_armed:
            self._open(p)
        return SUCCESS

    def _do_interrupt_bind(self, pe: int, regs: Regs) -> int | None:
        return self._bind(regs[_X1] & W_MASK) if regs[PSTATE] & EL_MASK == self._client else NOT_SUPPORTED

    def _do_interrupt_release(self, pe: int, regs: Regs) -> int | None:
        return self._release(regs[_X1] & W_MASK) if regs[PSTATE] & EL_MASK == self._client else NOT_SUPPORTED

    def _do_signal(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        target = self._pe_of_affinity.get(regs[_X2] & AFFINITY_MASK)
        if target is None:
            return INVALID_PARAMETERS
        p = self._pes[target]
        inst = p.private.get(regs[_X1] & W_MASK)
        if inst is None or not inst.signalable:
            return INVALID_PARAMETERS
        state = inst.state
        result = TRIGGER_RESULT[state]
        if result != SUCCESS:
            return result
        if self._strict_signal and (p.masked or not state & BIT_ENABLED):
            return INVALID_PARAMETERS
        inst.accepted += 1
        if inst.pending:
            inst.merged += 1
        else:
            inst.pending = True
            if state == ENABLED:
                self._arm(inst, pe, pe)
            else:
                self._waits(inst)
        return SUCCESS

    def _do_features(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        feature = regs[_X1] & W_MASK
        if feature == Feature.BIND_SLOTS:
            return self._features_word
        return self._relative_mode if feature == Feature.RELATIVE_MODE else INVALID_PARAMETERS

    def _do_private_reset(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        return self._unregister_all(self._pes[pe].private, pe)

    def _do_shared_reset(self, pe: int, regs: Regs) -> int | None:
        if regs[PSTATE] & EL_MASK != self._client:
            return NOT_SUPPORTED
        result = self._unregister_all(self._shared, pe)
        return self._release_all() if result == SUCCESS else result

    def _unregister_all(self, instances: dict[int, Instance], pe: int) -> int:
        """Unregister what is registered; DENIED if a handler still runs, but only after the others are done (TFA)."""
        result = SUCCESS
        for inst in instances.values():
            if inst.state != UNREGISTERED and self._apply(inst, Action.UNREGISTER, pe) != SUCCESS:
                result = DENIED
        return result

    # --- the host's side ---------------------------------------------------------------------------------------------

    def trigger(self, event: int, pe: int | None) -> Trigger:
        """Inject `event`: mark it pending and add the PE that is to take it, if one can now, to `kicks`.

        Args:
            event: event number.
            pe: for a private event the PE; for a shared event a PE to prefer (RM_ANY) or None.

        Raises:
            UsageError: no such event, no such PE, or no PE given for a private event.
            NotDeliveredError: not registered, or the PE of a private event is off: nothing is left pending.
        """
        if pe is not None and not 0 <= pe < len(self._pes):
            raise UsageError(f"there is no PE {pe}: this guest has PE 0..{len(self._pes) - 1}")
        description = self.describe(event)
        if description.type == EventType.SHARED:
            inst = self._shared[event]
        elif pe is None:
            raise UsageError(f"event {event:#x} ({description.name}) is private: say for which PE")
        else:
            inst = self._pes[pe].private[event]
        if TRIGGER_RESULT[inst.state] != SUCCESS:
            found = obstacle(self, inst, inst.pe if pe is None else pe)
            raise NotDeliveredError("the event is not registered" if found is None else found.why)
        inst.accepted += 1
        if inst.pending:
            inst.merged += 1
            return Trigger.MERGED
        inst.pending = True
        if inst.state == ENABLED:
            self._arm(inst, ANY_PE, ANY_PE if pe is None else pe)
        else:
            self._waits(inst)
        return Trigger.QUEUED

    def has_static(self, pe: int, event: int) -> bool:
        """Whether an event is there for a PE, and is none that an interrupt can be bound to."""
        inst = self._pes[pe].instances.get(event)
        return inst is not None and inst.slot is None

    def why_pending(self, event: int, pe: int | None) -> str | None:
        """`what_is_in_the_way` in a sentence. Raises as it does."""
        found = self.what_is_in_the_way(event, pe)
        return None if found is None else found.why

    def what_is_in_the_way(self, event: int, pe: int | None) -> Obstacle | None:
        """What stands between `event` and its handler on `pe`; None: nothing, or it is not pending.

        Raises:
            UsageError: no such event or PE.
        """
        return obstacle(self, *self._instance(event, pe))

    def why_unheard(self, event: int, pe: int | None) -> Obstacle | None:
        """Why nobody would hear of `event` if it were triggered now: it is not registered, disabled, or each PE that
        may take it is masked or off. None: somebody would. Raises as `what_is_in_the_way`.
        """
        return unheard(self, *self._instance(event, pe))

    def _instance(self, event: int, pe: int | None) -> tuple[Instance, int]:
        """The instance that `event` on `pe` is, and the PE that is meant."""
        if pe is not None and not 0 <= pe < len(self._pes):
            raise UsageError(f"there is no PE {pe}: this guest has PE 0..{len(self._pes) - 1}")
        description = self.describe(event)
        if description.type == EventType.SHARED:
            return self._shared[event], ANY_PE if pe is None else pe
        if pe is None:
            raise UsageError(f"event {event:#x} ({description.name}) is private: say for which PE")
        return self._pes[pe].private[event], pe

    def status(self) -> Document:
        """Where everything stands, for people. JSON-able."""
        return status_of(self)

    def snapshot(self) -> Document:
        """The complete state as one versioned, JSON-able document (see `state.py`)."""
        return snapshot_of(self)

    def restore(self, document: object) -> None:
        """Take the state of a `snapshot`; PEs on which something is deliverable are added to `kicks`.

        Raises:
            ProtocolError: the document is damaged or is of another machine; nothing is changed then.
        """
        restore_into(self, document)
