"""What the trace costs: each call with the ring and without it, the file of `run --trace`, `explain` of many vCPUs."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.trace.reading import open_trace
from scripts.benchlib.checkout import ROOT

_LOOP: Final = Path("qemu_sdei/backend/loop")
RING_LINES: Final = {
    _LOOP / "call_frames.py": (
        """            # As `Ring.take`. The parts of the ring's hot path cost 30 to 60 ns each, most of it Python's.
            ring, places = self._ring, self._places
            if not places:
                ring.enter_part()
            posted, outcome, at, unstamped = places.pop()
            ring.tag = tag = ring.tag + 0x10_0000  # STEP
            part = ring.part
            part[posted] = self._posted[pe]
            ring.word = 0
""",
        """            part[outcome] = self._done[pe]
            part[at + 22] = ring.word | flags if flags else ring.word  # At.ANSWER
            ring.word = -1
            if pe:
                tag |= pe << 8
            if unstamped and self._sparse:
                part[at] = tag  # At.TAG
            else:
                part[at + 1] = self._log.look()  # At.TIME
                part[at] = tag + 6  # Type.STAMPED in place of FRAME
                if tag > self._stamped_to:
                    self._sparse = self._sparsely
""",
    ),
    _LOOP / "server.py": (
        """        window.save |= Save.COUNTER
""",
    ),
    _LOOP / "event_log.py": (
        """            try:
                words, times = of_cause[cause][event]
            except KeyError:
                words, times = first(event, cause)
            if ring.word:
                keep(Type.TRANSITION, pe if pe >= 0 else None, words[old])
            else:
                ring.word = words[old]
            if times is not None:
                times[pe] = seen.now
""",
    ),
}
"""What a call does for the trace, by file: the reference is the same backend without these lines."""
_CALLS: Final = 200_000
_VCPUS: Final = 16

Add = Callable[[str, str, float, float, str], None]


@contextlib.contextmanager
def without_ring() -> Iterator[Path]:
    """A copy of this checkout whose calls leave nothing in the ring. Raises ValueError: the lines are others now."""
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-bench-") as name:
        tree = Path(name)
        shutil.copytree(ROOT / "qemu_sdei", tree / "qemu_sdei", ignore=shutil.ignore_patterns("__pycache__"))
        for file in RING_LINES:
            (tree / file).write_text(stripped(file))
        yield tree


def stripped(file: Path) -> str:
    """The text of a file without what it does for the trace. Raises ValueError: it does something else now."""
    source = (ROOT / file).read_text()
    for lines in RING_LINES[file]:
        if source.count(lines) != 1:
            raise ValueError(f"{file} does not have these lines once, put them right here:\n{lines}")
        source = source.replace(lines, "")
    return source


def measure_file(rounds: int, say: Callable[[str], None], add: Add) -> None:
    """SIGNAL to COMPLETE while all of it goes into a file, beside the ring alone; what came and what was dropped."""
    medians: dict[bool, list[float]] = {False: [], True: []}
    slowest: dict[bool, list[float]] = {False: [], True: []}
    rates, dropped = [], 0
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-bench-") as name:
        path = Path(name) / "trace"
        for n in range(rounds):
            for filed in (False, True):
                say(f"a trace file, round {n + 1} of {rounds}")
                append = f"mode=signal count={_CALLS}"
                options = GuestOptions(
                    kernel="builtin:bench", append=append, memory="128M", smp=1, trace=path if filed else None
                )
                with Guest(options) as guest:
                    found = guest.expect(r"signal: .*median_ns=(\d+) p99_ns=(\d+)\s", 120)
                    medians[filed].append(float(found[1]))
                    slowest[filed].append(float(found[2]))
            with open_trace(path) as reading:
                times, count = [], 0
                for record in reading.records():
                    count += 1
                    dropped += record["count"] if record["type"] == "dropped" else 0
                    if record["type"] == "call":
                        times.append(record["at_ns"])
            rates.append(count / (max(times) - min(times)) * 1e9)
    middle = rounds // 2
    add("trace file: SIGNAL to COMPLETE, median", "us", _middle(medians[True]), _middle(medians[False]), "")
    add("trace file: SIGNAL to COMPLETE, p99", "us", _middle(slowest[True]), _middle(slowest[False]), "< 1000 us")
    add("trace file: records a second, of all dropped", "", sorted(rates)[middle], float(dropped), ">= 50000, 0")


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] / 1000


def measure_explain(say: Callable[[str], None], add: Add) -> None:
    """`explain` of a guest with many vCPUs, one of which is stuck in a handler; beside `status` of it."""
    seconds = {}
    options = GuestOptions(
        kernel="builtin:bench", append=f"mode=wedge n=2 smp={_VCPUS}", memory="256M", smp=_VCPUS, name="bench-explain"
    )
    with Guest(options) as guest:
        guest.expect("wedge: ready", 120)
        for command in ("explain", "status"):
            say(f"{command} of {_VCPUS} vCPUs")
            began = time.monotonic()
            words = [sys.executable, "-m", "qemu_sdei", command, "bench-explain", "--json"]
            done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
            seconds[command] = time.monotonic() - began
            json.loads(done.stdout)
    add(f"explain, {_VCPUS} vCPUs (status)", "s", seconds["explain"], seconds["status"], "< 2 s")
