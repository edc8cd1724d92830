"""A second, naive telling of SDEI's rules, to hold the dispatcher against.

Written for obviousness: flags instead of states, no table, no lists that say who is armed, the delivery rule evaluated
from scratch over everything. It shares no code with the package; only the numbers of the interface are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SUCCESS, NOT_SUPPORTED, INVALID, DENIED, PENDING = 0, -1, -2, -3, -5
CLIENT = 1


@dataclass
class ModelEvent:
    """One instance."""

    number: int
    shared: bool
    critical: bool
    signalable: bool
    home: int | None
    """The PE of a private instance."""
    registered: bool = False
    enabled: bool = False
    running_on: int | None = None
    pending: bool = False
    entry: int = 0
    argument: int = 0
    route: int | None = None
    """Shared: the only PE that may take it."""
    slot: bool = False
    """It means something only while an interrupt is bound to it."""

    @property
    def status(self) -> int:
        """EVENT_STATUS."""
        return self.registered + 2 * self.enabled + 4 * (self.running_on is not None)

    def drop(self) -> int:
        """What UNREGISTER does; the result."""
        if not self.registered:
            return DENIED if self.running_on is None else PENDING
        self.registered = self.enabled = self.pending = False
        return SUCCESS if self.running_on is None else PENDING


@dataclass
class ModelPe:
    """One PE: `stack` holds (event, interrupted registers)."""

    on: bool = False
    masked: bool = True
    stack: list[tuple[ModelEvent, list[int]]] = field(default_factory=list)


class Model:
    """All of it. `kinds`: (number, shared, critical, signalable)."""

    def __init__(
        self, pes: int, kinds: list[tuple[int, bool, bool, bool]], slots: list[tuple[int, bool]] | None = None
    ) -> None:
        self.kinds = kinds
        self.slots = slots or []
        self.bindings: dict[int, int] = {}
        self.known: set[int] = set()
        """Slot -> interrupt."""
        self.pes = [ModelPe() for _ in range(pes)]
        self.shared = {n: ModelEvent(n, True, c, s, None) for n, shared, c, s in kinds if shared}
        self.shared |= {n: ModelEvent(n, True, False, False, None, slot=True) for n, shared in self.slots if shared}
        self.private = [self._fresh(pe) for pe in range(pes)]
        self.resume: tuple[int, int] | None = None
        self.span = False
        """SCTLR_EL1.SPAN, as it is now."""

    def _fresh(self, pe: int) -> dict[int, ModelEvent]:
        events = {n: ModelEvent(n, False, c, s, pe) for n, shared, c, s in self.kinds if not shared}
        return events | {n: ModelEvent(n, False, False, False, pe, slot=True) for n, shared in self.slots if not shared}

    def event(self, pe: int, number: int) -> ModelEvent | None:
        """The instance that a call on `pe` means."""
        return self.private[pe].get(number) or self.shared.get(number)

    def affinity(self, value: int) -> int | None:
        """PE of an affinity: here PE n has affinity n."""
        value &= 0xFF00FFFFFF
        return value if value < len(self.pes) else None

    # --- the delivery rule -------------------------------------------------------------------------------------------

    def deliverable(self, event: ModelEvent, pe: int) -> bool:
        """Sdei.md 6, word for word."""
        target = self.pes[pe]
        if not (event.pending and event.registered and event.enabled and event.running_on is None):
            return False
        if event.home not in (None, pe) or event.route not in (None, pe):
            return False
        if not target.on or target.masked:
            return False
        if event.critical:
            return not any(running.critical for running, _ in target.stack)
        return not target.stack

    def candidates(self, pe: int) -> list[ModelEvent]:
        """Everything deliverable on `pe`, the one that comes first first."""
        events = [*self.private[pe].values(), *self.shared.values()]
        return sorted((e for e in events if self.deliverable(e, pe)), key=lambda e: (not e.critical, e.number))

    def dispatch(self, pe: int, regs: list[int]) -> int | None:
        """Deliver, if anything is to be. `regs` is edited."""
        if regs[1] & 0x1F not in (0x0, 0x4, 0x5, 0x10):
            return None
        for event in self.candidates(pe):
            self.pes[pe].stack.append((event, list(regs)))
            event.pending = False
            event.running_on = pe
            regs[2:6] = [event.number, event.argument, regs[0], regs[1]]
            regs[0] = event.entry
            regs[1] = self.taken(regs[1])
            return event.number
        return None

    def taken(self, pstate: int) -> int:
        """PSTATE after an exception to EL1 on a CPU with PAN: EL1h, DAIF, the flags, PAN if SCTLR_EL1.SPAN is 0."""
        pan = 1 << 22 if not self.span else pstate & 1 << 22
        return (pstate & 0xF0000000) + pan + 0x3C5

    def finish(self, pe: int) -> list[int]:
        """The innermost handler ends; what it had interrupted."""
        event, saved = self.pes[pe].stack.pop()
        event.running_on = None
        return saved

    # --- calls -------------------------------------------------------------------------------------------------------

    def call(self, pe: int, name: str, regs: list[int]) -> int | None:
        """A call by `pe`: the result, or None after editing `regs`."""
        if regs[1] & 0x1F not in (4, 5):
            return NOT_SUPPORTED
        args = regs[3:]
        event = self.event(pe, args[0] & 0xFFFFFFFF)
        if event is not None and event.slot and event.number not in self.known:
            event = None  # a number that was never handed out is no event's
        here = self.pes[pe]
        if name == "EVENT_COMPLETE":
            if not here.stack:
                return DENIED
            regs[:] = self.finish(pe)
            return None
        if name == "EVENT_COMPLETE_AND_RESUME":
            if not here.stack or not self.executable(args[0]):
                return DENIED
            address = args[0]
            regs[:] = self.finish(pe)
            self.resume = (regs[0], regs[1])
            regs[0] = address
            regs[1] = self.taken(regs[1])
            return None
        if name == "EVENT_CONTEXT":
            index = args[0] & 0xFFFFFFFF
            if index > 17:
                return INVALID
            return here.stack[-1][1][2 + index] if here.stack else DENIED
        if name == "PE_MASK":
            was, here.masked = here.masked, True
            return 0 if was else 1
        if name == "PE_UNMASK":
            here.masked = False
            return SUCCESS
        if name == "PRIVATE_RESET":
            return self.reset_all(list(self.private[pe].values()))
        if name == "SHARED_RESET":
            result = self.reset_all(list(self.shared.values()))
            if result == SUCCESS:
                results = [self.release(slot) for slot in list(self.bindings)]
                result = DENIED if DENIED in results else SUCCESS
            return result
        if name == "INTERRUPT_BIND":
            return self.bind(args[0] & 0xFFFFFFFF)
        if name == "INTERRUPT_RELEASE":
            return self.release(args[0] & 0xFFFFFFFF)
        if name == "EVENT_SIGNAL":
            return self.signal(args)
        if event is None:
            return INVALID
        if name == "EVENT_REGISTER":
            return self.register(event, args)
        if name == "EVENT_ROUTING_SET":
            return self.routing_set(event, args)
        if name == "EVENT_STATUS":
            return event.status
        if name == "EVENT_GET_INFO":
            return self.info(event, args[1] & 0xFFFFFFFF)
        if name == "EVENT_UNREGISTER":
            return event.drop()
        assert name in ("EVENT_ENABLE", "EVENT_DISABLE")
        if not event.registered:
            return DENIED
        event.enabled = name == "EVENT_ENABLE"
        return SUCCESS

    @staticmethod
    def executable(address: int) -> bool:
        """Not 0, a multiple of 4, and the top 12 bits all alike."""
        return address != 0 and address % 4 == 0 and (address < 1 << 52 or address >= 0xFFF0000000000000)

    def register(self, event: ModelEvent, args: list[int]) -> int:
        """EVENT_REGISTER."""
        route = None
        if not self.executable(args[1]) or args[3] not in (0, 1):
            return INVALID
        if event.shared and args[3] == 1:
            route = self.affinity(args[4])
            if route is None:
                return INVALID
        if event.registered or event.running_on is not None:
            return DENIED
        if event.slot and event.number not in self.bindings:
            return DENIED
        event.registered, event.enabled, event.pending = True, False, False
        event.entry, event.argument, event.route = args[1], args[2], route
        return SUCCESS

    def routing_set(self, event: ModelEvent, args: list[int]) -> int:
        """EVENT_ROUTING_SET."""
        if not event.shared or args[1] not in (0, 1) or (event.slot and event.number not in self.bindings):
            return INVALID
        route = self.affinity(args[2]) if args[1] == 1 else None
        if args[1] == 1 and route is None:
            return INVALID
        if event.status != 1:
            return DENIED
        event.route = route
        return SUCCESS

    @staticmethod
    def info(event: ModelEvent, what: int) -> int:
        """EVENT_GET_INFO."""
        if what < 3:
            return int((event.shared, not event.signalable, event.critical)[what])
        if what > 4 or not event.shared:
            return INVALID
        if not event.registered:
            return DENIED
        if what == 3:
            return int(event.route is not None)
        return INVALID if event.route is None else event.route

    def signal(self, args: list[int]) -> int:
        """EVENT_SIGNAL."""
        target = self.affinity(args[1])
        if target is None:
            return INVALID
        event = self.private[target].get(args[0] & 0xFFFFFFFF)
        if event is None or not event.signalable or not event.registered:
            return INVALID
        event.pending = True
        return SUCCESS

    @staticmethod
    def reset_all(events: list[ModelEvent]) -> int:
        """Both resets."""
        results = [event.drop() for event in events if event.registered or event.running_on is not None]
        return DENIED if PENDING in results else SUCCESS

    # --- bound interrupts --------------------------------------------------------------------------------------------

    def bind(self, intid: int) -> int:
        """INTERRUPT_BIND."""
        if intid < 16 or intid > 40 or intid == 40:
            return INVALID
        for slot, other in self.bindings.items():
            if other == intid:
                return slot
        for slot, shared in self.slots:
            if slot not in self.bindings and shared == (intid >= 32):
                self.bindings[slot] = intid
                self.known.add(slot)
                return slot
        return -10

    def instances(self, number: int) -> list[ModelEvent]:
        """Of one event, on all PEs."""
        return [self.shared[number]] if number in self.shared else [events[number] for events in self.private]

    def release(self, number: int) -> int:
        """INTERRUPT_RELEASE."""
        if number not in self.bindings:
            return INVALID
        if any(event.status for event in self.instances(number)):
            return DENIED
        del self.bindings[number]
        return SUCCESS

    def fire(self, intid: int, pe: int) -> bool:
        """An interrupt on `pe`; whether it is the firmware's."""
        for slot, bound in self.bindings.items():
            if bound == intid:
                event = self.event(pe, slot)
                assert event is not None
                event.pending = event.pending or event.registered
                return event.status != 0
        return False

    # --- host and power ----------------------------------------------------------------------------------------------

    def trigger(self, number: int, pe: int) -> str:
        """An injection: QUEUED, MERGED or REFUSED."""
        event = self.event(pe, number)
        assert event is not None
        if not event.registered:
            return "REFUSED"
        was, event.pending = event.pending, True
        return "MERGED" if was else "QUEUED"

    def power_off(self, pe: int) -> None:
        """CPU_OFF."""
        while self.pes[pe].stack:
            self.finish(pe)
        self.pes[pe] = ModelPe()
        self.private[pe] = self._fresh(pe)

    def reset(self) -> None:
        """System reset."""
        self.__init__(len(self.pes), self.kinds, self.slots)  # type: ignore[misc]
