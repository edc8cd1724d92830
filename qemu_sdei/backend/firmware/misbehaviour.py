"""Firmware that misbehaves on purpose: has the rules of a firmware profile act, around calls, deliveries and power.

It is put around the call table, the exchange and the parts that look after power where a profile asks for it, and is
not there otherwise: without rules no call and no delivery passes here. What can be said is in
`qemu_sdei/profiles/vocabulary.py`; what is done to events, in `qemu_sdei/sdei/faults.py`; what is done to calls, in
`faulty_calls.py`.

Deterministic, as all of the firmware: what it counts and remembers is replayed, saved and migrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from qemu_sdei.backend.firmware.call_table import CallTable, Handler
from qemu_sdei.backend.firmware.core import PARK, Core
from qemu_sdei.backend.firmware.exchange import Exchange
from qemu_sdei.backend.firmware.fault_state import FaultState
from qemu_sdei.backend.firmware.faulty_calls import FaultyCalls
from qemu_sdei.backend.firmware.profile_scene import ProfileScene
from qemu_sdei.errors import NotDeliveredError, ProtocolError, UsageError
from qemu_sdei.monitor.layout import Word
from qemu_sdei.monitor.ops import encode
from qemu_sdei.profiles.firmware_profile import SPEC_PROFILE, FirmwareProfile
from qemu_sdei.profiles.matching import Matcher, Moment
from qemu_sdei.profiles.rule import Rule
from qemu_sdei.profiles.vocabulary import Occasion
from qemu_sdei.sdei import faults
from qemu_sdei.sdei.constants import Function as SdeiFunction
from qemu_sdei.sdei.context import PC, PSTATE
from qemu_sdei.sdei.dispatcher import Trigger
from qemu_sdei.services.psci import Function as PsciFunction
from qemu_sdei.services.psci import Psci

_MAX_LOST: Final = 16
"""Deliveries that are lost in one frame; more wait for the next."""
_ENDS: Final = frozenset((int(SdeiFunction.EVENT_COMPLETE), int(SdeiFunction.EVENT_COMPLETE_AND_RESUME)))
_OFF: Final = frozenset((int(PsciFunction.CPU_OFF),))


class Misbehaviour:
    """What one guest's firmware does wrong.

    Attributes:
        profile: its rules; without any it does nothing wrong.
        state: what has become of vCPUs by them.
    """

    def __init__(self, core: Core, psci: Psci, calls: CallTable, exchange: Exchange) -> None:
        self.profile = SPEC_PROFILE
        self.state = FaultState(core)
        self._scene = ProfileScene(core, psci)
        self._matcher = Matcher((), self._scene)
        self._faulty = FaultyCalls(core, self._scene, self.state, self._act)
        self._core = core
        self._dispatcher = core.dispatcher
        self._answer = core.answer
        self._calls = calls
        self._exchange = exchange

    @property
    def active(self) -> bool:
        """Whether something is not as the specifications say, or may be."""
        return self.profile.misbehaves or self.state.left

    def use(self, profile: FirmwareProfile) -> None:
        """Have these rules act from now on. What has become of vCPUs stays: a deaf one is deaf until it is powered off.
        Times of rules that were there before, and stand at the same place, are counted on.

        Raises:
            UsageError: a rule is about what there is not in this guest.
        """
        self._check(profile)
        before = self._matcher
        same = 0
        for old, new in zip(self.profile.rules, profile.rules, strict=False):
            if old.text != new.text:
                break
            same += 1
        self._matcher = Matcher(profile.rules, self._scene)
        self._matcher.take_over(before, same)
        self.profile = profile
        self._install()

    def _check(self, profile: FirmwareProfile) -> None:
        vcpus = len(self._scene.affinities)
        for number, rule in enumerate(profile.rules, 1):
            own = [function for function in rule.functions if self._calls.users_own(function)]
            if own and len(own) == len(rule.functions):
                raise UsageError(f"rule {number}: a service of your own answers this function: have it misbehave there")
            if rule.unplaced:
                raise UsageError(
                    f"rule {number}: nobody has said where the function {rule.unplaced[0]} is: give addresses, or "
                    "--symbols to the command that sets the rule"
                )
            if rule.values.get("to", 0) >= vcpus:
                raise UsageError(f"rule {number}: to={rule.values['to']}: this guest has vCPU 0..{vcpus - 1}")

    def _install(self) -> None:
        """Be there where a rule, or what has become of a vCPU, asks for it; and nowhere else."""
        functions = set(self._matcher.functions)
        held = any("holds" in rule.values for rule in self.profile.rules)
        deaf = any("deaf" in rule.values for rule in self.profile.rules)
        if held or deaf or self.state.left:
            functions |= _ENDS | _OFF
        self._calls.intercept(functions, self._wrapped)
        if deaf or self.state.left or self._matcher.at(Occasion.DELIVERY) or self._wedges():
            self._exchange.deliver_by(self._deliver_ordinary, self._deliver)
        else:
            self._exchange.deliver_by(self._dispatcher.dispatch, self._dispatcher.dispatch)
        self._core.quirks.hooks = self if self.active else None

    def _wedges(self) -> bool:
        return any("never" in rule.values for rule in self.profile.rules)

    def _wrapped(self, function: int, handler: Handler) -> Handler:
        return self._faulty.around(function, handler)

    def _act(self, moment: Moment, *, priorities: bool = False) -> dict[str, Any]:
        """What the rules say that act now, each action once, of the first rule that has it; marks are made."""
        found: dict[str, Any] = {}
        for number, rule in self._matcher.rules_of(moment, priorities=priorities):
            for word, value in rule.actions.items():
                found.setdefault(word, value)
            self._mark(rule, moment)
            name = self.profile.name
            self._core.observer.tell("misbehaved", moment.vcpu, profile=name, rule=number, does=rule.does)
        return found

    def _mark(self, rule: Rule, moment: Moment) -> None:
        marks, values = self._matcher.marks, rule.values
        if moment.vcpu is not None and "marks" in values:
            marks.add((values["marks"], moment.vcpu))
        if moment.vcpu is not None and "unmarks" in values:
            marks.discard((values["unmarks"], moment.vcpu))
        if moment.target is not None and "marks-target" in values:
            marks.add((values["marks-target"], moment.target))

    def late_ns(self, pe: int, function: int, regs: memoryview, caller: int, ahead: Any) -> tuple[int, tuple[int, ...]]:
        """See `Matcher.late_ns`, for a call that was posted and not handled; `caller`: its x30."""
        return self._matcher.late_ns(self._scene.call(function, pe, regs, caller), ahead)

    @property
    def asks_callers(self) -> bool:
        """Whether a rule asks who called: the journal keeps x30 then."""
        return self._matcher.asks_callers

    @property
    def has_late(self) -> bool:
        """Whether a rule makes calls late."""
        return any("late" in rule.values for rule in self.profile.rules)

    # ---- deliveries --------------------------------------------------------------------------------------------------

    def _deliver(self, pe: int, regs: memoryview, sctlr: int, hcr_el2: int) -> int | None:
        """In place of `Engine.dispatch`."""
        state = self.state
        if pe in state.deaf or pe in state.stuck:
            return None
        dispatcher = self._dispatcher
        if not self._matcher.at(Occasion.DELIVERY):
            return dispatcher.dispatch(pe, regs, sctlr, hcr_el2)
        for _ in range(_MAX_LOST):
            number = faults.next_event(dispatcher, pe, regs[PSTATE])
            if number is None:
                return dispatcher.dispatch(pe, regs, sctlr, hcr_el2)
            actions = self._act(Moment(Occasion.DELIVERY, pe, event=number, pc=regs[PC]))
            if "loses" in actions or "to" in actions:
                claim = faults.lose_event(dispatcher, number, pe)
                if claim is not None:  # the exchange has seen to interrupts already
                    self._answer.ops += self._core.ownership.gic.listen(*claim)
                if "to" in actions:
                    self._redirect(number, actions["to"])
                continue
            if dispatcher.dispatch(pe, regs, sctlr, hcr_el2) is None:
                return None  # the guest wrote into the frame meanwhile
            if "doubles" in actions:
                faults.again(self._dispatcher, pe)
            self._faulty.spoil(regs, actions)
            if "holds" in actions:
                state.hold(pe)
            if "deaf" in actions:
                state.deafen(pe)
            if "never" in actions:
                state.stick(pe)
            return number
        return None

    def _redirect(self, event: int, pe: int) -> bool:
        """Trigger an event elsewhere; False: it is lost there."""
        try:
            self._dispatcher.trigger(event, pe)
        except (NotDeliveredError, UsageError):
            return False
        return True

    def _deliver_ordinary(self, pe: int, regs: memoryview, sctlr: int, hcr_el2: int) -> int | None:
        """The same behind a call whose answer is complete."""
        number = self._deliver(pe, regs, sctlr, hcr_el2)
        answer = self._answer
        if answer.frame is not None and (answer.flags or answer.ops):
            answer.frame[Word.FLAGS] = answer.flags & PARK | encode(answer.frame, answer.ops)
            answer.flags = 0
            answer.ops.clear()
        return number

    # ---- triggers ----------------------------------------------------------------------------------------------------

    def trigger(self, event: int, pe: int | None) -> Trigger:
        """In place of `Dispatcher.trigger`; raises as it does."""
        dispatcher = self._dispatcher
        if not self._matcher.at(Occasion.TRIGGER):
            return dispatcher.trigger(event, pe)
        shared = dispatcher.describe(event).type.name == "SHARED"
        moment = Moment(Occasion.TRIGGER, None if shared else pe, event=event, by="host")
        kicks = len(dispatcher.kicks)
        found = dispatcher.trigger(event, pe)  # what it refuses, no rule is asked about
        actions = self._act(moment)
        if "loses" in actions or "to" in actions:
            del dispatcher.kicks[kicks:]
        if found is Trigger.QUEUED and (actions.get("loses") == "event" or "to" in actions):
            faults.lose_event(dispatcher, event, None if shared else pe)
        if "to" in actions:
            self._redirect(event, actions["to"])
        return found

    def interrupted(self, intid: int, pe: int) -> None:
        """In place of `Interrupts.interrupt`."""
        dispatcher = self._dispatcher
        event = dispatcher.event_of(intid)
        if event is None or not self._matcher.at(Occasion.TRIGGER):
            dispatcher.interrupt(intid, pe)
            return
        shared = dispatcher.describe(event).type.name == "SHARED"
        moment = Moment(Occasion.TRIGGER, pe, event=event, by="interrupt")
        if not dispatcher.interrupt(intid, pe):
            return
        actions = self._act(moment)
        if actions.get("loses") == "event" or "to" in actions:
            claim = faults.lose_event(dispatcher, event, None if shared else pe)
            if claim is not None:
                dispatcher.interrupts.append(claim)
        if "to" in actions:
            self._redirect(event, actions["to"])
        if "never" in actions:
            self.state.stuck.add(pe)  # what the GIC is told of the interrupt comes first

    # ---- power: see `PowerHooks` -------------------------------------------------------------------------------------

    def keeps_priorities(self, pe: int, wakes: bool) -> bool:
        """See `PowerHooks`."""
        occasion = Occasion.WAKE if wakes else Occasion.CPU_UP
        return "keeps" in self._act(Moment(occasion, pe), priorities=True)

    def kernel_keeps_priorities(self, pe: int) -> bool:
        """See `PowerHooks`."""
        self._act(Moment(Occasion.KERNEL, pe))
        return "keeps" in self._act(Moment(Occasion.KERNEL, pe), priorities=True)

    def came_up(self, pe: int) -> bool:
        """See `PowerHooks`."""
        self.state.put_back(pe)
        actions = self._act(Moment(Occasion.CPU_UP, pe))
        self._after_power(pe, actions)
        return "never" not in actions

    def woke(self, pe: int) -> None:
        """See `PowerHooks`."""
        actions = self._act(Moment(Occasion.WAKE, pe))
        dropped: Sequence[str] = actions.get("drops", ())
        if "events" in dropped:
            faults.unregister(self._dispatcher, pe)
        if pe in self.state.deaf:
            self.state.deafen(pe)  # the power-down has cleared what the GIC held
        self._after_power(pe, actions)

    def _after_power(self, pe: int, actions: dict[str, Any]) -> None:
        if "leaves" in actions:
            faults.set_mask(self._dispatcher, pe, actions["leaves"] == "masked")
        if "deaf" in actions:
            self.state.deafen(pe)
        if "never" in actions:
            self.state.stick(pe)

    def machine_resets(self) -> None:
        """See `PowerHooks`."""
        self.state.reset()
        self._matcher.reset()
        if "keeps" in self._act(Moment(Occasion.RESET, 0)):
            self.state.keep_over_reset()
        if not self.active:
            self._install()

    # ---- state -------------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        return {"profile": self.profile.document(), **self._matcher.snapshot(), **self.state.snapshot()}

    def restore(self, document: object) -> None:
        """Take over a snapshot; None: the firmware does nothing wrong.

        Raises:
            ProtocolError: it is damaged, or has rules that this version does not know.
        """
        if document is None:
            self.state.clear()
            self._matcher = Matcher((), self._scene)
            self.profile = SPEC_PROFILE
            self._install()
            return
        if not isinstance(document, dict):
            raise ProtocolError("firmware profile: it is not an object")
        profile = FirmwareProfile.of_document(document.get("profile"))
        matcher = Matcher(profile.rules, self._scene)
        matcher.restore(document, len(self._scene.affinities))
        try:
            self._check(profile)
        except UsageError as error:
            raise ProtocolError(f"firmware profile: {error}") from None
        self.state.restore(document)
        self._matcher, self.profile = matcher, profile
        self._install()

    def why_not(self, pe: int | None) -> str | None:
        """Why an event that nothing else holds back may not be handled on a vCPU, as a sentence; None: no reason."""
        name = self.profile.name
        if pe in self.state.stuck:
            return f"vCPU {pe} stays in EL3, by a firmware profile ({name} now)"
        if pe in self.state.deaf:
            return f"vCPU {pe} takes no event, by a firmware profile ({name} now)"
        return f"this firmware misbehaves on purpose (firmware profile {name})" if self.profile.misbehaves else None

    def report(self) -> dict[str, Any]:
        """For `status`: what it is, and what has become of vCPUs by it. JSON-able."""
        acted = self._matcher.acted()
        return {
            "profile": self.profile.name,
            "summary": self.profile.summary,
            "rules": [
                {"rule": rule.text, "why": rule.why, "acted": acted[index]}
                for index, rule in enumerate(self.profile.rules)
            ],
            "deaf": sorted(self.state.deaf),
            "stuck": sorted(self.state.stuck),
            "held": sorted(self.state.held),
        }
