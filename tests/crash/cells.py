"""Cells that nobody has run: guests made by hand, as pictures, and what a matrix would have of them."""

from __future__ import annotations

from dataclasses import replace

from qemu_sdei.crash.cells import Axes, Capture, Cell, Kernel
from qemu_sdei.crash.document import CellResult, Matrix
from qemu_sdei.crash.endings import DEFAULT, endings_of
from qemu_sdei.crash.verdict import Seen, Verdict, judge
from qemu_sdei.explain.explanation import Explanation, explain
from qemu_sdei.explain.picture import Where
from qemu_sdei.guest.kdump_stages import Stage
from tests.explain.scenes import SOFTWARE, Scene, ready

ALL = tuple((stage, 0.5 * n) for n, stage in enumerate(Stage))
STARTED = ALL[:3]
"""As far as the capture kernel's begin."""
IDLE = Where(0x1000, 0x3C5, registers={"ICC_AP1R0_EL1": 0, "ICC_AP0R0_EL1": 0})
AXES = Axes(endings_of(DEFAULT), ("spec", "tfa"), (Kernel("6.1"), Kernel("own", missing="none")), tuple(Capture))
FACTS = {"program": "0", "qemu": "7.2", "date": "2026-11-30 12:00", "vcpus": 3, "memory": "768M"}


def stayed() -> Scene:
    """VCPU 1 was stopped, and stays in its handler; another kernel has begun, and asked for it."""
    scene = ready(2)
    scene.enter(1, SOFTWARE)
    scene.passes(2).kernel(0)
    scene.call(0, "CPU_ON", -4, target=1, entry=0x4020_0000)
    return scene


def came_up_deaf() -> Scene:
    """VCPU 1 went off inside an interrupt's handler, and was started as it was."""
    scene = ready(2)
    scene.off(1)
    scene.passes(2).kernel(0)
    scene.call(0, "CPU_ON", 0, target=1, entry=0x4020_0000)
    scene.record("priorities", 1, at="cpu-on", ap1r0=1 << 26, active=[0xA0], then="kept")
    scene.on(1)
    scene.vcpus[1] = replace(scene.vcpus[1], masked=False)
    waits = Where(0x1000, 0x3C5, registers={"ICC_AP1R0_EL1": 1 << 26, "ICC_AP0R0_EL1": 0, "ICC_PMR_EL1": 0xF8})
    scene.change(1, seen=(waits, waits))
    return scene


def explained(scene: Scene) -> Explanation:
    return explain(scene.passes(3).picture())


def dumped() -> Verdict:
    return judge(Seen(ALL, (0, 1, 2), 3, None))


def fewer() -> Verdict:
    return judge(Seen(ALL, (0,), 2, explained(stayed())))


def wedged() -> Verdict:
    return judge(Seen(STARTED, None, 2, explained(came_up_deaf()), "it did not come to its init", (1, 3)))


def matrix(*rounds: Verdict) -> Matrix:
    """Each cell of the first kernel came to `rounds`."""
    found = Matrix(AXES, dict(FACTS), {"spec": "nothing is wrong", "tfa": "as measured"}, {"6.1": "6.1.0-57-arm64"})
    for origin in AXES.origins():
        cells: list[Cell] = AXES.cells(origin)
        found.results += [CellResult(cell, rounds) for cell in cells]
    return found
