"""The trace: one JSON object a line for each call and each thing that happens, into a file that may fail."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from qemu_sdei.backend.firmware.function_names import function_name
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.errors import UsageError
from qemu_sdei.monitor.layout import Kind, Word, counter_of
from qemu_sdei.rundir import WARNING
from qemu_sdei.sdei.context import PC, PSTATE, X0
from qemu_sdei.smccc.ids import FUNCTION_MASK


class Trace:
    """Writes the trace of one guest. What cannot be written ends the trace, with a warning, and not the guest."""

    def __init__(self, path: Path, guest: ServedGuest, clock: Callable[[], int]) -> None:
        """Append to the file `path`; `clock` gives nanoseconds. Raises `UsageError`: it cannot be opened."""
        self._guest = guest
        self._clock = clock
        self._path = path
        self._file: TextIO | None = None
        try:
            self._file = path.open("a")
        except OSError as error:
            raise UsageError(f"trace {path} cannot be written: {error.strerror}") from None

    def write(self, record: dict[str, Any]) -> None:
        """Write something that happens."""
        if self._file is None:
            return
        if record["type"] == "deliver":
            pe = record["pe"]
            record = record | self._counter(pe) | {"interrupted": self._interrupted(pe)}
        try:
            self._file.write(json.dumps(record) + "\n")
        except OSError as error:
            self._fail(error)

    def _interrupted(self, pe: int) -> dict[str, Any]:
        """PC, PSTATE and X0..X30 that a handler which starts now has interrupted."""
        saved = self._guest.firmware.dispatcher.interrupted(pe)
        assert saved is not None
        # The core has what a handler may change; a delivery leaves the other registers where they are.
        rest = self._guest.window.frames[pe][Word.X0 + 18 : Word.X30 + 1].tolist()
        return {"pc": saved[PC], "pstate": saved[PSTATE], "x": saved[X0:].tolist() + rest}

    def _counter(self, pe: int) -> dict[str, int]:
        """The guest's counter when the CPU came to EL3 with the frame that is being answered, if its monitor tells."""
        counter = counter_of(self._guest.window.frames[pe], self._guest.firmware.machine.monitor)
        return {} if counter is None else {"counter": counter}

    def frame(self, answer: Callable[[int, int], bool], pe: int, s: int) -> bool:
        """Have `answer` answer a frame, and write what it was if it is a call. Returns what `answer` returns."""
        frame = self._guest.window.frames[pe]
        call = frame[Word.KIND] == Kind.SMC
        function = frame[Word.FUNCTION]
        arguments = frame[Word.X0 + 1 : Word.X0 + 6].tolist()
        pc = frame[Word.PC]
        counter = self._counter(pe)
        slow = answer(pe, s)
        if call:
            record = {"function": function_name(function & FUNCTION_MASK), "id": function, "args": arguments, "pc": pc}
            x0 = frame[Word.X0] if frame[Word.PC] == pc else None  # it went on where it called
            self.write({"time_ns": self._clock(), "type": "call", "pe": pe, **counter, **record, "x0": x0})
        return slow

    def flush(self) -> None:
        """Have written what happened so far."""
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                self._fail(error)

    def close(self) -> None:
        """End the file."""
        self.flush()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _fail(self, error: OSError) -> None:
        file, self._file = self._file, None
        text = f"{WARNING}the trace {self._path} is not complete, the guest goes on without it: {error.strerror}"
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
