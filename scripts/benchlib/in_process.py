"""What the backend itself needs for a call: no QEMU, no other core, nothing that waits. Other checkouts beside it.

The real server answers frames that are posted here, in a window that no guest has. Figures of a guest are larger: they
have in them what it costs to hand cache lines from one core to the other. These show what a change to the Python code
does, on a host where something else runs, too: all sides are in one process and take turns of a millisecond.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

_RAM_BASE: Final = 0x4000_0000
_RAM: Final = 4 << 20
_EL1: Final = 0x3C5
_HANDLER: Final = 0x4300_0000
_TURN: Final = 100
"""Operations of a turn: so few that the journal, which is made empty before each, never fills up."""
_WARM: Final = 20
"""Those before them, which are not measured."""
_MODULES: Final = {
    "layout": "qemu_sdei.monitor.layout",
    "window": "qemu_sdei.monitor.window",
    "firmware": "qemu_sdei.backend.firmware.firmware",
    "journal": "qemu_sdei.backend.loop.journal",
    "server": "qemu_sdei.backend.loop.server",
    "ring": "qemu_sdei.trace.ring",
    "constants": "qemu_sdei.sdei.constants",
}

Add = Callable[[str, str, float, float, str], None]
Call = tuple[int, ...]
"""Function id and arguments."""


@contextlib.contextmanager
def _only_from(tree: Path) -> Iterator[None]:
    """While this lasts, imports of `qemu_sdei` find the modules of `tree`, and not those of this process."""

    def ours() -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "qemu_sdei"}

    known = ours()
    for name in known:
        del sys.modules[name]
    sys.path.insert(0, str(tree))
    try:
        yield
    finally:
        sys.path.remove(str(tree))
        for name in ours():
            del sys.modules[name]
        sys.modules.update(known)


class _SilentDoorbell:
    """Nobody is rung for, and nobody rings."""

    def fileno(self) -> int:
        """A descriptor that nothing comes from: it is never polled."""
        return 0

    def ring(self) -> None:
        """Nothing to do."""

    def drain(self) -> bool:
        """It has not ended."""
        return True


class Backend:
    """The backend of one checkout, with a machine of one vCPU that has an event registered and enabled."""

    def __init__(self, tree: Path, directory: Path) -> None:
        """`directory`: for its journal and its ring.

        Raises:
            RuntimeError: what it answers is wrong, so that no figure of it would mean anything.
        """
        with _only_from(tree):
            code = SimpleNamespace(**{name: importlib.import_module(path) for name, path in _MODULES.items()})
            self._layout = code.layout
            fd = os.memfd_create("bench-ram")
            os.ftruncate(fd, _RAM)
            window = code.window.Window(fd, _RAM_BASE, _RAM, 1)
            os.close(fd)
            ring = code.ring.Ring(directory / "ring", time.monotonic_ns)
            self._slots = ring.slots
            journal = code.journal.Journal(directory / "journal")
            self._server: Any = code.server.Server(window, _SilentDoorbell(), code.firmware.Firmware(1), journal, ring)
            self._frame = window.frames[0]
            self._post = window.frames[0][code.layout.HEAD]
            self._seq = 0
            function = code.constants.Function
            self.operations: dict[str, tuple[Call, ...]] = {
                "SDEI_VERSION": ((function.VERSION,),),
                "EVENT_STATUS": ((function.EVENT_STATUS, 0),),
                "DISABLE and ENABLE": ((function.EVENT_DISABLE, 0), (function.EVENT_ENABLE, 0)),
                "SIGNAL to COMPLETE": ((function.EVENT_SIGNAL, 0, 0), (function.EVENT_COMPLETE, 0)),
            }
            self._server.begin()
            self._boot()
            self._check(function)
        self._lines = {name: [self._line(call) for call in calls] for name, calls in self.operations.items()}

    def _boot(self) -> None:
        word = self._layout.Word
        self._frame[word.MONITOR_VERSION] = self._layout.VERSION
        self._frame[word.KIND] = self._layout.Kind.RESET
        self._seq += 1
        self._server.frame(0, self._seq)

    def _line(self, call: Call) -> memoryview:
        """What the monitor writes into a frame for a call, as the words of the journal's part."""
        word, first = self._layout.Word, int(self._layout.Word.KIND)
        line = memoryview(bytearray(8 * self._layout.HEAD_WORDS)).cast("Q")
        line[word.KIND - first] = self._layout.Kind.SMC
        line[word.VECTOR - first] = 8
        line[word.FUNCTION - first] = call[0]
        line[word.COUNTER - first] = 1 << 30
        line[word.PC - first] = 0xFFFF_8000_0812_3456 & ~3
        line[word.PSTATE - first] = _EL1
        for n, value in enumerate(call, int(word.X0) - first):
            line[n] = value
        return line

    def _answer(self, call: Call) -> tuple[int, int]:
        """PC and X0 of the answer of a call."""
        self._post[:] = self._line(call)
        self._seq += 1
        self._server.frame(0, self._seq)
        word = self._layout.Word
        if self._frame[word.ACK] != self._seq:
            raise RuntimeError("the backend does not answer")
        return self._frame[word.PC], self._frame[word.X0]

    def _check(self, function: Any) -> None:
        """Have the event registered and enabled, and see that each call does what it is measured for."""
        self._answer((function.EVENT_REGISTER, 0, _HANDLER, 0, 0, 0))
        self._answer((function.PE_UNMASK,))
        for call in ((function.EVENT_ENABLE, 0), *self.operations["DISABLE and ENABLE"]):
            if self._answer(call)[1] != 0:
                raise RuntimeError(f"call {call[0]:#x} is refused")
        if self._answer((function.EVENT_STATUS, 0))[1] != 3:
            raise RuntimeError("the event is not enabled")
        signal, complete = self.operations["SIGNAL to COMPLETE"]
        if self._answer(signal)[0] != _HANDLER or self._answer(complete)[0] == _HANDLER:
            raise RuntimeError("the handler is not entered, or not left")

    def round_the_ring(self) -> None:
        """Have each page of the ring touched once: that costs a record later on nothing any more."""
        self._time("EVENT_STATUS", self._server.frame, self._slots)

    def turn(self, name: str) -> float:
        """Nanoseconds of one operation, by a turn of `_TURN` of them; what it costs to post is taken off."""
        self._server.checkpoint()
        self._time(name, self._server.frame, _WARM)  # the other side has had this core's caches
        posting = self._time(name, None, _TURN)
        return (self._time(name, self._server.frame, _TURN) - posting) / _TURN

    def _time(self, name: str, answer: Callable[[int, int], bool] | None, count: int) -> int:
        lines, post, whole, s = self._lines[name], self._post, slice(None), self._seq
        if answer is None:
            began = time.perf_counter_ns()
            for _ in repeat(None, count):
                for line in lines:
                    post[whole] = line
            return time.perf_counter_ns() - began
        began = time.perf_counter_ns()
        for _ in repeat(None, count):
            for line in lines:
                post[whole] = line
                s += 1
                answer(0, s)
        spent = time.perf_counter_ns() - began
        self._seq = s
        return spent


def _in_memory() -> str | None:
    """Where files are kept in memory, as those of a run directory mostly are. None: wherever files are."""
    return next(
        (place for place in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm") if place and Path(place).is_dir()), None
    )


def turns(trees: list[Path], count: int, say: Callable[[str], None]) -> dict[str, list[list[float]]]:
    """By operation: of each checkout the nanoseconds of `count` turns, which were taken one after the other."""
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-bench-", dir=_in_memory()) as name:
        backends = []
        for n, tree in enumerate(trees):
            directory = Path(name) / str(n)
            directory.mkdir()
            backends.append(Backend(tree, directory))
            backends[-1].round_the_ring()
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            for operation in backends[0].operations:
                say(f"in process: {operation}")
                sides = found[operation] = [[] for _ in trees]
                for n in range(count + 10):
                    order = range(len(trees)) if n % 2 else range(len(trees) - 1, -1, -1)
                    for side in order:
                        spent = backends[side].turn(operation)
                        if n >= 10:  # before that the interpreter adapts itself
                            sides[side].append(spent)
        finally:
            gc.enable()
            gc.unfreeze()
    return found


def measure(trees: tuple[Path, Path], rounds: int, say: Callable[[str], None], add: Add, aims: dict[str, str]) -> None:
    """The first checkout beside the second. Where turns are disturbed their median is of little use, so the fastest
    tenth is there as well.
    """
    found = turns(list(trees), 100 * rounds, say)
    for operation, (this, other) in found.items():
        aim = aims.get(operation, "")
        add(
            f"{operation}, in process: median", "us", statistics.median(this) / 1e3, statistics.median(other) / 1e3, aim
        )
        add(f"{operation}, in process: fastest tenth", "us", _tenth(this) / 1e3, _tenth(other) / 1e3, aim)


def measure_trace(trees: tuple[Path, Path], rounds: int, say: Callable[[str], None], add: Add) -> None:
    """The first checkout beside one without the trace, and what a record costs by that."""
    rows: dict[str, tuple[float, float]] = {}

    def keep(what: str, unit: str, this: float, other: float, aim: str) -> None:
        rows[what] = this, other
        add(what, unit, this, other, aim)

    measure(trees, rounds, say, keep, {"SIGNAL to COMPLETE": "<= 1.10x", "SDEI_VERSION": "<= 1.20x"})
    for what, operation, records in (
        ("a record of a call that only asks", "EVENT_STATUS", 1),
        ("a record of a call with its transition", "SIGNAL to COMPLETE", 2),
    ):
        this, other = rows[f"{operation}, in process: fastest tenth"]
        add(what, "us", (this - other) / records, 0, "<= 0.2 us")


def _tenth(values: list[float]) -> float:
    return sorted(values)[len(values) // 10]
