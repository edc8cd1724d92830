"""A seeded fuzzer of frames and calls: drives `Server.frame` over a simulated guest and checks invariants.

    python -m tests.fuzz.fuzzer --seed S --calls N

does again what a failure of that seed did. Everything random comes from the seed; nothing depends on time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from qemu_sdei.errors import SdeiError
from qemu_sdei.monitor.layout import AnswerFlag, Kind, Word
from qemu_sdei.sdei.constants import CODE_NAMES
from qemu_sdei.sdei.constants import Function as Sdei
from qemu_sdei.sdei.transitions import STATES, STEP, Action
from qemu_sdei.services.psci import Power
from qemu_sdei.smccc.ids import FUNCTION_MASK
from tests.backend.simulated import SimulatedGuest
from tests.fuzz.arguments import ALLOWED, CPUS, EL1H, EVENTS, M64, MORE_RESULTS, SLOTS, calls, modes, pools
from tests.fuzz.gic import ForgivingGic
from tests.fuzz.invariants import any_armed, check_attention, scan

_SNAPSHOT_EVERY = 10_000
_RESTART_EVERY = 20_011
_POOLS_EVERY = 5_000
_SCAN_EVERY = 64
_COMPLETE, _RESUME, _CONTEXT = Sdei.EVENT_COMPLETE, Sdei.EVENT_COMPLETE_AND_RESUME, Sdei.EVENT_CONTEXT
COUNTER_HZ = 62_500_000
_NO_CALL, _ANY_REGISTERS = -1, -2
_HOSTILE_KINDS = (0, 6, 7, 9, 1 << 32, M64)


class FuzzError(AssertionError):
    """An invariant does not hold; the message says how to see it again."""


class Fuzzer:
    """One machine of four PEs and the seed's way through it.

    Attributes:
        calls: SMC frames so far.
        steps: all that was done so far.
        coverage: how often (function id or what else, result or what else) came.
    """

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.calls = self.steps = 0
        self.coverage: Counter[tuple[Any, Any]] = Counter()
        self._rng = random.Random(seed)
        self._guest = SimulatedGuest(CPUS, directory)
        self._guest.hypervisor = self._guest.stolen_time = True
        self._guest.id_registers = {"CNTFRQ_EL0": COUNTER_HZ}
        window = self._guest.window
        self._seq, self._frames, self._contexts = window.seq, window.frames, window.contexts
        self._raw = [context.cast("B") for context in window.contexts]
        self._before = [b""] * CPUS
        self._function = [_NO_CALL] * CPUS
        self._shadow: list[list[bytes]] = [[] for _ in range(CPUS)]
        """What each PE's handlers interrupted, as this side saw it."""
        self._reposting = [False] * CPUS
        self._parked = [True] * CPUS
        self._odd = [False] * CPUS
        """Nothing could be delivered at the PE's last return: it ran where no handler may go, or came from reset."""
        self._shared_running: set[int] = set()
        self._gic = ForgivingGic(CPUS)
        self._attach()
        self._reset_machine()

    def run(self, count: int) -> None:
        """Go on until there have been `count` calls.

        Raises:
            FuzzError: an invariant did not hold.
        """
        try:
            while self.calls < count:
                if self.steps % _POOLS_EVERY == 0:
                    self._table, self._pools, self._modes = calls(self._rng), pools(self._rng), modes(self._rng)
                self._step(self._rng.getrandbits(64))
                self.steps += 1
                if self.steps % _SCAN_EVERY == 0:
                    scan(self._dispatcher)
                    if self.steps % _SNAPSHOT_EVERY < _SCAN_EVERY:
                        self._snapshot()
                    if self.steps % _RESTART_EVERY < _SCAN_EVERY:
                        self._restart()
        except Exception as error:
            raise FuzzError(
                f"seed {self.seed} step {self.steps} call {self.calls}: {type(error).__name__}: {error}\n"
                f"again: python -m tests.fuzz.fuzzer --seed {self.seed} --calls {count}"
            ) from error

    # ---- one step ---------------------------------------------------------------------------------------------------

    def _step(self, r: int) -> None:
        pe, action = r & 3, r >> 2 & 63
        if self._reposting[pe]:
            self._operations_done(pe)
        elif action < 55:
            if self._parked[pe] and r >> 54 & 31:  # else: a call from a PE that is off
                pe = next((other for other in range(CPUS) if not (self._parked[other] or self._reposting[other])), -1)
            if pe >= 0:
                self._call(pe, r >> 8)
            elif 1 not in self._server.kicks.on_the_way and True not in self._reposting:
                self._reset_machine()
        else:
            self._other(pe, action, r >> 8)
        kicked = self._server.kicks.on_the_way
        if 1 in kicked and not r >> 62:  # the others are still on their way
            for target in range(CPUS):
                if kicked[target] and not self._reposting[target]:
                    self._post(target, Kind.KICK, _NO_CALL)
        dispatcher = self._dispatcher
        if dispatcher._shared_armed or any_armed(self._pes):
            check_attention(dispatcher, self._comes)

    def _comes(self, pe: int) -> bool:
        """The PE was told that there is something for it, or was where nothing could be delivered."""
        told = self._server.kicks.on_the_way[pe] or self._reposting[pe] or self._odd[pe]
        return bool(self._dispatcher.attention[pe] and told)

    def _call(self, pe: int, r: int) -> None:
        frame = self._frames[pe]
        function, x1, x2 = self._table[r & 255]
        x3, x4, x5 = self._pools
        frame[10] = frame[18] = function
        frame[19] = x1[r >> 8 & 63]
        frame[20] = x2[r >> 14 & 63]
        frame[21] = x3[r >> 20 & 63]
        frame[22] = x4[r >> 26 & 63]
        frame[23] = x5[r >> 32 & 63]
        frame[17] = self._modes[r >> 38 & 63]
        self.calls += 1
        self._post(pe, 2, function)

    def _post(self, pe: int, kind: int, function: int) -> None:
        """Post what lies in the frame, and see what comes back."""
        frame = self._frames[pe]
        frame[8] = kind
        self._before[pe] = self._raw[pe].tobytes()
        self._function[pe] = function
        self._seq[pe] = s = self._seq[pe] + 1
        firmware = self._firmware
        delivered = firmware.exchange.delivered
        self._server.frame(pe, s)
        assert frame[0] == s, f"PE {pe}: frame of kind {kind} not answered"
        self._answered(pe, frame, firmware.exchange.delivered - delivered)

    def _operations_done(self, pe: int) -> None:
        frame = self._frames[pe]
        frame[8] = Kind.OPS
        self._seq[pe] = s = self._seq[pe] + 1
        delivered = self._firmware.exchange.delivered
        self._server.frame(pe, s)
        assert frame[0] == s, f"PE {pe}: operations not answered"
        self._answered(pe, frame, self._firmware.exchange.delivered - delivered)

    def _answered(self, pe: int, frame: memoryview, delivered: int) -> None:
        frame[15] = frame[0]
        flags = frame[1]
        if flags:
            assert max(flags & 0xFF, flags >> 8) <= 16, f"PE {pe}: flags {flags:#x}"
            self._gic.execute(frame, pe)
            if flags & AnswerFlag.REPOST:
                self._reposting[pe] = True
                if self._rng.random() < 0.9:
                    self._operations_done(pe)
                return
        self._reposting[pe] = False
        self._parked[pe] = parked = bool(flags & AnswerFlag.PARK)
        self._odd[pe] = self._dispatcher.attention[pe] != 0
        shadow = self._shadow[pe]
        running = self._pes[pe].running
        if parked or flags & AnswerFlag.ALL:
            if self._firmware.psci.power[pe] is not Power.ON or flags & AnswerFlag.ALL:
                shadow.clear()
                assert len(running) == delivered, f"PE {pe} went off or on with handlers"
                if running:
                    shadow.append(self._pes[pe].frames[0].tobytes())
            return
        self._returned(pe, shadow, len(running), delivered)

    def _returned(self, pe: int, shadow: list[bytes], depth: int, delivered: int) -> None:
        """The PE goes on: where, with what, and was that allowed?"""
        function, before, raw = self._function[pe], self._before[pe], self._raw[pe]
        number = function & FUNCTION_MASK if function >= 0 else function
        completed = len(shadow) + delivered - depth
        if delivered:
            p, context = self._pes[pe], self._contexts[pe]
            after = p.frames[depth - 1].tobytes()
            assert (delivered, depth) in ((1, 1), (1, 2)), f"PE {pe}: {depth} handlers"
            ranks = [inst.rank for inst in p.running]
            assert ranks in ([1], [2], [1, 2]), f"PE {pe}: ranks of nested handlers {ranks}"
            inst, saved = p.running[-1], p.frames[depth - 1]
            entered = [context[0], *context[2:6]]
            assert entered == [inst.entry, inst.number, inst.argument, saved[0], saved[1]], f"PE {pe}: entered wrongly"
        else:
            after = raw.tobytes()
        if completed:
            assert completed == 1, f"PE {pe}: {number:#x} ended {completed} handlers"
            assert number in (_COMPLETE, _RESUME), f"PE {pe}: {number:#x} ended a handler"
            base = shadow.pop()
            if number == _COMPLETE:
                assert after == base, f"PE {pe}: COMPLETE does not restore"
            else:
                assert (after[:8], after[16:]) == (before[24:32], base[16:]), f"PE {pe}: COMPLETE_AND_RESUME"
            label: Any = "completed"
        elif number >= 0:
            assert after[:16] == before[:16], f"PE {pe}: {number:#x} changed PC or PSTATE"
            last = 48 if number in MORE_RESULTS else 24
            assert after[last:] == before[last:], f"PE {pe}: {number:#x} changed more than its results"
            label = self._check_result(pe, number, before, int.from_bytes(after[16:24], "little"), shadow)
        else:
            assert number == _ANY_REGISTERS or after == before, f"PE {pe}: an interrupt changed registers"
            label = "delivered" if delivered else "nothing"
        if delivered:
            shadow.append(after)
        self.coverage[number, label] += 1

    def _check_result(self, pe: int, number: int, before: bytes, x0: int, shadow: list[bytes]) -> Any:
        label = x0 if x0 < 8 else x0 - (1 << 64) if x0 > M64 - 16 else "value"
        allowed = ALLOWED.get(number)
        if allowed is not None:
            if x0 not in allowed:
                unserved = number >= Sdei.VERSION and before[8] & 0x1C != EL1H & 0x1C and x0 == M64
                assert unserved, f"PE {pe}: {number:#x} returned {x0:#x}"
        elif number == _CONTEXT:
            index = int.from_bytes(before[24:28], "little")
            if before[8] & 0x1C == EL1H & 0x1C:
                word = shadow[-1][16 + 8 * index : 24 + 8 * index] if shadow and index < 18 else b""
                expected = int.from_bytes(word, "little") if word else M64 - 2 if index < 18 else M64 - 1
                assert x0 == expected, f"PE {pe}: CONTEXT {index} is {x0:#x}, not {expected:#x}"
        elif number not in self._firmware.calls.table:
            assert x0 == M64, f"PE {pe}: {number:#x}, which nobody serves, returned {x0:#x}"
            return "unserved"
        return label

    # ---- what is no call --------------------------------------------------------------------------------------------

    def _other(self, pe: int, action: int, r: int) -> None:
        if action < 59:
            event = (EVENTS + SLOTS)[r % 21] if r & 1 << 20 else EVENTS[r % 9]
            with contextlib.suppress(SdeiError):
                self._server.trigger(event, None if r & 1 << 21 else r >> 22 & 7)
                self.coverage["trigger", event] += 1
        elif action < 61:
            if not self._parked[pe] and r & 3:
                self._frames[pe][17] = (EL1H, 0, 0x10, 0x3C9)[r >> 2 & 3]
            self._post(pe, Kind.KICK, _NO_CALL)
        elif action < 63:
            intid = (16, 27, 30, 31, 32, 33, 47, 287)[r & 7]
            if not self._parked[pe] and self._gic.take(intid, pe):
                self._frames[pe][Word.VECTOR] = intid
                self._post(pe, Kind.INTERRUPT, _NO_CALL)
                self.coverage["interrupt", intid] += 1
        elif r & 7 == 0:
            self._hostile(pe, r >> 5 & 7, r >> 8)
        elif r & 0x1FF == 1:
            self._reset_machine()

    def _hostile(self, pe: int, what: int, r: int) -> None:
        """Frames that no monitor posts, or that it posts when all is lost."""
        frame = self._frames[pe]
        self.coverage["hostile", what] += 1
        if what < 3:
            forged = (0, self._seq[pe], r & M64, 1 << 47, (1 << 48) - 1, M64, self._seq[pe] + 2)[r % 7]
            if forged != self._seq[pe] + 1:
                frame[Word.KIND] = (2, 3, 4, 9)[r >> 8 & 3] if forged < 1 << 47 else Kind.RESET
                acknowledged, kept = frame[0], self._server.journal.count
                self._server.frame(pe, forged)
                assert (frame[0], self._server.journal.count) == (acknowledged, kept), "forged number was served"
        elif what == 3:
            self._post(pe, _HOSTILE_KINDS[r % 6], _ANY_REGISTERS)
        elif what == 4 and not self._parked[pe]:
            frame[Word.VECTOR] = 8
            self._post(pe, Kind.EXCEPTION, _ANY_REGISTERS)
        elif what == 5:
            frame[Word.VECTOR] = (0, 1023, 40, 5000, M64, r & 0x3FF)[r % 6]
            self._post(pe, Kind.INTERRUPT, _NO_CALL if not self._parked[pe] else _ANY_REGISTERS)
        elif what == 6:
            frame[Word.VECTOR] = 8
            self._post(pe, Kind.OPS, _ANY_REGISTERS)
        elif pe:
            self._post(pe, Kind.RESET, _ANY_REGISTERS)
            self._odd[pe] = True

    def _reset_machine(self) -> None:
        self.coverage["reset", 0] += 1
        for pe in reversed(range(CPUS)):
            frame = self._frames[pe]
            self._guest.reset(pe)
            self._seq[pe] = s = self._seq[pe]
            frame[Word.VECTOR] = 0
            self._server.frame(pe, s)
            if frame[1] & AnswerFlag.REPOST:
                frame[Word.KIND] = Kind.OPS
                self._seq[pe] = s = s + 1
                self._server.frame(pe, s)
            assert frame[0] == s, f"PE {pe}: reset not answered"
            frame[15] = s
            self._shadow[pe].clear()
            self._reposting[pe] = self._odd[pe] = False
            self._parked[pe] = pe != 0
        self._shared_running.clear()
        self._gic = ForgivingGic(CPUS)
        assert not any(p.running or p.armed for p in self._pes), "something survived a reset"

    # ---- the backend ------------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """A new backend, with ears on what it tells."""
        self._server = server = self._guest.server()
        self._firmware = firmware = server.firmware
        self._dispatcher = dispatcher = firmware.dispatcher
        self._pes = dispatcher._pes
        tell = dispatcher.on_transition
        assert tell is not None
        shared = {inst.number for inst in dispatcher._shared.values()}

        def transition(event: int, pe: int, old: int, new: int, cause: str) -> None:
            tell(event, pe, old, new, cause)
            assert new in STATES, f"event {event:#x}: state {new}"
            if cause != "RESET":
                assert STEP[Action[cause]][old][1] == new, f"event {event:#x}: {cause} from {old} to {new}"
            self.coverage[cause, old] += 1
            if event in shared and cause in ("DISPATCH", "COMPLETE"):
                if cause == "DISPATCH":
                    assert event not in self._shared_running, f"shared event {event:#x} runs twice"
                    self._shared_running.add(event)
                else:
                    self._shared_running.remove(event)

        def note(name: str, pe: int, **details: Any) -> None:
            server.log.note(name, pe, **details)
            assert name != "reject" or "failed" not in details["why"], details["why"]

        dispatcher.on_transition = transition
        firmware.observer.note = note

    def _restart(self) -> None:
        """The backend dies between two frames; another one takes up where it was."""
        old = self._firmware.snapshot()
        self._attach()
        hooks = self._dispatcher.on_transition, self._firmware.observer.note
        self._dispatcher.on_transition = self._firmware.observer.note = None
        assert self._server.recover(), "nothing to recover"
        self._dispatcher.on_transition, self._firmware.observer.note = hooks
        assert self._firmware.snapshot() == old, "the journal does not lead to the state that was"
        self.coverage["restart", 0] += 1

    def _snapshot(self) -> None:
        state = self._firmware.snapshot()
        other = self._guest.firmware()
        other.restore(json.loads(json.dumps(state)))
        assert other.snapshot() == state, "snapshot, restore, snapshot"
        self.coverage["snapshot", 0] += 1


def main() -> int:
    """The command. Returns its exit code: 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.fuzzer", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        fuzzer = Fuzzer(options.seed, Path(directory))
        start = time.process_time()
        try:
            fuzzer.run(options.calls)
        except FuzzError as error:
            print(error, file=sys.stderr)
            return 1
        spent = time.process_time() - start
    print(f"seed {fuzzer.seed}: {fuzzer.calls} calls, {fuzzer.steps} steps: {fuzzer.calls / spent:,.0f} calls/s of CPU")
    for (what, result), count in sorted(fuzzer.coverage.items(), key=str):
        name = Sdei(what).name if isinstance(what, int) and what in set(Sdei) else what
        shown = CODE_NAMES.get(result, result) if isinstance(what, int) and result in CODE_NAMES else result
        if result != "unserved":
            print(f"{count:9} {name if isinstance(name, str) else f'{name:#x}'} {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
