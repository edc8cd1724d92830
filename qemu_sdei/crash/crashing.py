"""One cell: a guest is restored, given its firmware profile, crashed, and followed as far as it comes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from qemu_sdei.crash.cells import Cell
from qemu_sdei.crash.origins import VCPUS, closed, restored
from qemu_sdei.crash.verdict import Result, Seen, Verdict, blocks, judge
from qemu_sdei.errors import GuestTimeoutError, KdumpError, SdeiError
from qemu_sdei.explain.explanation import Explanation
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.kdump_stages import Reached, Stage
from qemu_sdei.guest.kdump_watch import Listener

POLL: Final = 2.0
"""Seconds without a stage, after which it is looked whether the guest hangs."""


@dataclass(frozen=True)
class Limits:
    """How long is waited.

    Attributes:
        stage: seconds for a stage to come, of a guest of which nothing says that it hangs.
        quiet: seconds for which a guest must say nothing to be taken for one that hangs, if `explain` says so too.
    """

    stage: float = 60.0
    quiet: float = 5.0


@dataclass
class _Followed:
    """One crash, as it is followed."""

    guest: Guest
    wanted: int
    began: float = 0.0
    stages: dict[Stage, float] = field(default_factory=dict)
    vcpus: tuple[int, ...] | None = None
    explanation: Explanation | None = None
    acted: tuple[int, ...] = ()

    def reached(self, reached: Reached) -> None:
        """A stage is; each wait tells all of them."""
        now = time.monotonic()
        if reached.stage is Stage.CRASH and not self.began:
            self.began = now
        if reached.stage in self.stages:
            return
        self.stages[reached.stage] = now - self.began if self.began else 0.0
        if reached.stage is Stage.SDEI:
            self.vcpus = reached.vcpus
            if len(self.vcpus) < self.wanted:
                self.explanation = self.guest.explain()  # now: it powers off when it has copied
        if reached.stage in (Stage.INIT, Stage.VMCORE):
            self.look_at_rules()

    def look_at_rules(self) -> None:
        """Which rules of the firmware profile have acted."""
        try:
            rules = self.guest.firmware.status()["rules"]
        except SdeiError:
            return  # it is off
        self.acted = tuple(number for number, rule in enumerate(rules, 1) if rule["acted"])

    def seen(self, error: str) -> Seen:
        """All of it."""
        stages = tuple(self.stages.items())
        return Seen(stages, self.vcpus, self.wanted, self.explanation, error, self.acted)


def crash(cell: Cell, directory: Path, scratch: Path, limits: Limits) -> Verdict:
    """Run a cell in a guest of its own, from the saved one in `directory`. Its dump is written below `scratch`, and
    gone then. What the guest does raises nothing.
    """
    began = time.monotonic()
    vmcore = scratch / f"vmcore-{time.monotonic_ns():x}"
    try:
        guest = restored(directory, vmcore, poll=POLL)
        try:
            verdict = _crashed(cell, guest, limits)
        finally:
            closed(guest)
            vmcore.unlink(missing_ok=True)
    except SdeiError as error:
        verdict = Verdict(Result.FAILED, reason=_line(error))
    return replace(verdict, took=time.monotonic() - began)


def _crashed(cell: Cell, guest: Guest, limits: Limits) -> Verdict:
    guest.start()
    guest.wait_shell()
    guest.firmware.use(cell.firmware)
    followed = _Followed(guest, cell.capture.vcpus(VCPUS))
    guest.write(cell.ending.script(VCPUS) + "\r")
    error = _follow(guest, followed, limits)
    if guest.power_off is None:
        followed.look_at_rules()
        followed.explanation = followed.explanation or guest.explain()
    return judge(followed.seen(error))


def _follow(guest: Guest, followed: _Followed, limits: Limits) -> str:
    """Wait until all stages are reached (""), or no further one comes: why, in a line.

    Who says nothing hangs if something is found that holds up what runs there. Without that it may be slow, and has the
    whole limit.
    """
    listener = Listener(stage=followed.reached)
    known, news = 0, time.monotonic()
    while True:
        began = time.monotonic()
        try:
            guest.wait_vmcore(limits.stage, listener=listener)
            return ""
        except KdumpError as error:
            why = _line(error)
        now = time.monotonic()
        if Stage.VMCORE in followed.stages:
            return _power_off(guest, followed, limits.stage)
        if len(followed.stages) > known:
            known, news = len(followed.stages), now
        if now - began < POLL or Stage.CRASH not in followed.stages or now - news > limits.stage:
            return why
        if _silent(guest, limits.quiet):
            explanation = guest.explain()
            if _silent(guest, limits.quiet) and blocks(explanation, followed.vcpus) is not None:
                followed.explanation = explanation
                return why


def _power_off(guest: Guest, followed: _Followed, limit: float) -> str:
    """The dump is here, and was not waited for any longer: the end of the guest is. Returns why it does not come."""
    try:
        guest.wait_off(limit)
    except SdeiError as error:
        return _line(error)
    followed.reached(Reached(Stage.OFF, 0.0))
    return ""


def _silent(guest: Guest, seconds: float) -> bool:
    """Whether its console has said nothing for so long."""
    try:
        guest.console_text.raise_if_silent(seconds, "a word")
    except GuestTimeoutError:
        return True
    return False


def _line(error: SdeiError) -> str:
    """What an error says, without what the console had; not for how long one of many waits has lasted."""
    return str(getattr(error, "message", error)).partition("\n")[0].removesuffix(f" within {POLL:g} s")
