"""Runs a crash matrix: boots what has to be booted, and has its cells run from there, some at a time."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qemu_sdei import __version__
from qemu_sdei.crash import origins
from qemu_sdei.crash.cells import Axes, Cell, Origin
from qemu_sdei.crash.crashing import Limits, crash
from qemu_sdei.crash.document import CellResult, Matrix, ordered
from qemu_sdei.crash.verdict import Result, Verdict
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.host.environment import find_qemu
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.profiles.firmware_profile import load

_END: Final = 60.0
_TICK: Final = 0.2
"""Seconds for guests to end, and between two looks whether they have."""
_BOOT: Final = 10
"""Times as long as a stage a boot may take, until the guest is saved."""


@dataclass(frozen=True)
class Plan:
    """What is to be run, and how.

    Attributes:
        axes: the cells.
        rounds: how often each.
        jobs: how many at a time.
        limits: how long is waited.
    """

    axes: Axes
    rounds: int = 1
    jobs: int = 1
    limits: Limits = field(default_factory=Limits)


def run(
    plan: Plan, *, progress: Progress = no_progress, on_cell: Callable[[CellResult], None] = lambda result: None
) -> Matrix:
    """Run all cells. Nothing of it is left, whatever ends it.

    Args:
        plan: which.
        progress: is told what takes long.
        on_cell: is told of each cell as it is done.

    Raises:
        UsageError: a firmware profile cannot be, there is no such kernel of Debian's, or no QEMU.
    """
    summaries = {name: load(name).summary for name in plan.axes.firmware}
    facts: dict[str, Any] = {
        "program": __version__,
        "qemu": ".".join(map(str, find_qemu().version)),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "vcpus": origins.VCPUS,
        "memory": origins.MEMORY,
    }
    matrix = Matrix(plan.axes, facts, summaries)
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="qemu-sdei-crash-"))
    runner = _Runner(plan, matrix, scratch, progress, on_cell)
    try:
        for origin in plan.axes.origins():
            runner.run(origin)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    matrix.results = ordered(matrix.results, plan.axes)
    matrix.seconds = time.monotonic() - began
    return matrix


class _Runner:
    """One matrix in the making."""

    def __init__(
        self, plan: Plan, matrix: Matrix, scratch: Path, progress: Progress, on_cell: Callable[[CellResult], None]
    ) -> None:
        self._plan, self._matrix, self._scratch = plan, matrix, scratch
        self._progress, self._on_cell = progress, on_cell
        self._stopped = threading.Event()

    def run(self, origin: Origin) -> None:
        """The cells of one guest."""
        cells, kernel = self._plan.axes.cells(origin), origin.kernel
        if kernel.missing:
            self._all(cells, Verdict(Result.MISSING, reason=kernel.missing))
            return
        directory = self._scratch / f"guest-{len(self._matrix.results)}"
        what = f"{kernel.name}, {origin.capture.value} capture kernel"
        try:
            self._matrix.releases[kernel.name] = origins.save(
                origin,
                directory,
                timeout=_BOOT * self._plan.limits.stage,
                progress=lambda text: self._progress(f"{what}: {text}"),
            )
        except UsageError:
            raise
        except SdeiError as error:
            self._all(cells, Verdict(Result.FAILED, reason=f"{what}: it cannot be prepared: {error}".split("\n")[0]))
            return
        try:
            self._crash(cells, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _all(self, cells: list[Cell], verdict: Verdict) -> None:
        for cell in cells:
            self._done(CellResult(cell, (verdict,)))

    def _crash(self, cells: list[Cell], directory: Path) -> None:
        rounds: dict[Cell, list[Verdict]] = {cell: [] for cell in cells}
        with ThreadPoolExecutor(self._plan.jobs, "cell") as pool:
            self._progress(f"cell {len(self._matrix.results) + 1} of {len(self._plan.axes)}: {cells[0].name}")
            left: dict[Future[Verdict], Cell] = {
                pool.submit(self._one, cell, directory): cell for _ in range(self._plan.rounds) for cell in cells
            }
            try:
                while left:
                    done, _ = wait(left, return_when=FIRST_COMPLETED)
                    for future in done:
                        cell = left.pop(future)
                        rounds[cell].append(future.result())
                        if len(rounds[cell]) == self._plan.rounds:
                            self._done(CellResult(cell, tuple(rounds[cell])))
                    self._tell(left)
            except BaseException:
                # Ctrl-C, or a fault of ours: what runs is ended, what waits is not begun.
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self._end([future for future in left if not future.done()])
                raise

    @staticmethod
    def _end(running: list[Future[Verdict]]) -> None:
        """End the guests of cells that run, also one that is only just made."""
        limit = time.monotonic() + _END
        while running and time.monotonic() < limit:
            origins.close_all()
            running = list(wait(running, timeout=_TICK).not_done)

    def _one(self, cell: Cell, directory: Path) -> Verdict:
        if self._stopped.is_set():
            return Verdict(Result.FAILED, reason="it was not begun")
        return crash(cell, directory, self._scratch, self._plan.limits)

    def _done(self, result: CellResult) -> None:
        self._matrix.results.append(result)
        self._on_cell(result)

    def _tell(self, left: dict[Future[Verdict], Cell]) -> None:
        if left:
            running = [cell.name for future, cell in left.items() if future.running()][: self._plan.jobs]
            done = len(self._matrix.results)
            self._progress(f"cell {done + 1} of {len(self._plan.axes)}: {'; '.join(running)}")
