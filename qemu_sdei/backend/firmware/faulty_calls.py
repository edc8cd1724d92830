"""Calls that a rule of a firmware profile is about: what is put around their handlers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Final

from qemu_sdei.backend.firmware.call_table import Handler
from qemu_sdei.backend.firmware.core import Core
from qemu_sdei.backend.firmware.fault_state import FaultState
from qemu_sdei.backend.firmware.profile_scene import ProfileScene
from qemu_sdei.monitor.layout import SysReg, Word
from qemu_sdei.monitor.ops import write_sysreg
from qemu_sdei.profiles.matching import Moment
from qemu_sdei.sdei import faults
from qemu_sdei.sdei.constants import SUCCESS
from qemu_sdei.sdei.constants import Function as SdeiFunction
from qemu_sdei.sdei.context import PC, WHOLE, X0
from qemu_sdei.services.psci import Function as PsciFunction

Actions = dict[str, Any]
GARBAGE: Final = 0xBAD0_BAD0_BAD0_BAD0
_M64: Final = 0xFFFF_FFFF_FFFF_FFFF
_X1: Final = X0 + 1
_X2: Final = X0 + 2
_LAST_CONTEXT_REGISTER: Final = 17
_SIGNAL: Final = int(SdeiFunction.EVENT_SIGNAL)
_CONTEXT: Final = int(SdeiFunction.EVENT_CONTEXT)
_COMPLETIONS: Final = frozenset((int(SdeiFunction.EVENT_COMPLETE), int(SdeiFunction.EVENT_COMPLETE_AND_RESUME)))
_CPU_OFF: Final = int(PsciFunction.CPU_OFF)


class FaultyCalls:
    """Puts rules around the handlers of one guest's calls."""

    def __init__(self, core: Core, scene: ProfileScene, state: FaultState, act: Callable[[Moment], Actions]) -> None:
        """`act` has the rules about something act, and gives what they say."""
        self._scene = scene
        self._state = state
        self._act = act
        self._dispatcher = core.dispatcher
        self._answer = core.answer
        self._gic = core.ownership.gic

    def around(self, function: int, handler: Handler) -> Handler:
        """What answers a function in place of `handler`."""
        return partial(self._call, function, handler)

    def _call(self, function: int, handler: Handler, pe: int, regs: memoryview) -> Any:
        frame = self._answer.frame
        moment = self._scene.call(function, pe, regs, 0 if frame is None else frame[Word.X30])
        actions = self._act(moment)
        if actions.get("never") == "instead":
            self._state.stick(pe)
            return None
        if "keeps" in actions:
            self._state.keep(pe, frozenset(actions["keeps"]))
        kicks = len(self._dispatcher.kicks)
        if "returns" in actions:
            result = actions["returns"]
        else:
            result = self._done(function, handler, pe, regs, moment, actions)
        if isinstance(result, Generator):
            return self._driven(result, function, pe, regs, moment, actions, kicks)
        return self._after(result, function, pe, regs, moment, actions, kicks)

    def _done(
        self, function: int, handler: Handler, pe: int, regs: memoryview, moment: Moment, actions: Actions
    ) -> Any:
        """The call is carried out, by arguments of its own or those of a rule."""
        if "to" in actions:
            wanted, moment.target = regs[_X2], actions["to"]
            regs[_X2] = self._scene.affinities[actions["to"]]
            result = handler(pe, regs)
            regs[_X2] = wanted
            return result
        if "disables" in actions and moment.event is not None:
            intid = faults.intid_of(self._dispatcher, moment.event)
            if intid is not None:
                self._gic.spoil(intid, pe)
        if "unchecked" in actions:
            address, regs[_X1] = regs[_X1], regs[PC]  # where it runs just now is valid
            result = handler(pe, regs)
            regs[PC if result is None else _X1] = address
            return result
        if "context" in actions:
            return self._of_another(function, handler, pe, regs, actions["context"])
        return handler(pe, regs)

    def _of_another(self, function: int, handler: Handler, pe: int, regs: memoryview, which: str) -> Any:
        """EVENT_CONTEXT or EVENT_COMPLETE with the context of the outer handler, or with none."""
        outer = faults.outer(self._dispatcher, pe)
        words = None if outer is None else outer.tolist()
        if function == _CONTEXT:
            index = regs[_X1] & 0xFFFF_FFFF
            result = handler(pe, regs)
            if not self._dispatcher.running(pe) or index > _LAST_CONTEXT_REGISTER:
                return result
            return 0 if which == "zero" else result if words is None else words[X0 + index]
        result = handler(pe, regs)
        if result is None and which == "zero":
            for index in range(X0, len(regs)):
                regs[index] = 0
        elif result is None and outer is not None:
            regs[WHOLE] = outer
        return result

    def _driven(
        self,
        steps: Generator[Any, Any, Any],
        function: int,
        pe: int,
        regs: memoryview,
        moment: Moment,
        actions: Actions,
        kicks: int,
    ) -> Generator[Any, Any, tuple[int, ...] | None]:
        """The same for a call that needs micro-operations before it is done."""
        words = yield from steps
        result = words[0] if words else None
        result = self._after(result, function, pe, regs, moment, actions, kicks)
        return None if result is None else (result, *words[1:])

    def _after(
        self, result: Any, function: int, pe: int, regs: memoryview, moment: Moment, actions: Actions, kicks: int
    ) -> Any:
        """What comes after the call. Returns its result, or None: it is in the registers, or there is none."""
        dispatcher, state, answer = self._dispatcher, self._state, self._answer
        if isinstance(result, tuple):
            result = result[0]
        lost = actions.get("loses")
        if lost == "kick" or (lost == "event" and function == _SIGNAL):
            del dispatcher.kicks[kicks:]
        if lost == "event" and function == _SIGNAL and result == SUCCESS and moment.event is not None:
            faults.lose_event(dispatcher, moment.event, moment.target)
        elif lost == "event" and function in _COMPLETIONS and result is None:
            faults.lose_pending(dispatcher, pe)
        if "handlers" in actions.get("drops", ()):
            faults.end_handlers(dispatcher, pe)
        if "events" in actions.get("drops", ()):
            faults.unregister(dispatcher, pe)
        if "leaves" in actions:
            faults.set_mask(dispatcher, pe, actions["leaves"] == "masked")
        if function == _CPU_OFF and result is None:
            state.powered_off(pe)
        elif not dispatcher.running(pe):
            state.release(pe)
        if "deaf" in actions:
            state.deafen(pe)
        if actions.get("never") == "after":
            state.stick(pe)
        if "answers" in actions and result is not None:
            result = actions["answers"]
        self.spoil(regs, actions)
        if result is not None and (answer.ops or answer.flags):
            # What goes with an answer goes along only where the result is in its place already.
            regs[X0] = result & _M64
            return None
        return result

    def spoil(self, regs: memoryview, actions: Actions) -> None:
        """Registers hold what they must not."""
        for word, value in (("clobbers", GARBAGE), ("zeroes", 0)):
            for name in actions.get(word, ()):
                if name.startswith("x"):
                    regs[X0 + int(name[1:])] = value
                else:
                    self._answer.ops.append(write_sysreg(SysReg[name], value))
