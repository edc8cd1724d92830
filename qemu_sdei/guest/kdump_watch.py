"""Waits for a crash dump: follows a guest from its panic through the capture kernel to the vmcore.

The console tells most; the firmware knows that another kernel has begun, and whether it takes events. Either may be
wrong about itself only: a guest that says what is not so harms its own user.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from qemu_sdei.boot import capture
from qemu_sdei.errors import GuestError, GuestTimeoutError, SdeiError, UsageError
from qemu_sdei.guest import shell
from qemu_sdei.guest.kdump_file import finished, no_room
from qemu_sdei.guest.kdump_stages import (
    NOT_REACHED,
    CaptureWords,
    Copying,
    Kdump,
    Reached,
    Stage,
    Stages,
    copy_failure,
    load_failure,
)
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.status import Status
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.kernel_messages import Panic
from qemu_sdei.vm.qemu_exit import PowerOff

_TICK: Final = 0.5
"""Seconds between two looks at what does not tell by itself."""
_OFF: Final = 20.0
"""Seconds until QEMU's end is known, once its console has closed."""
_HELD: Final = 4096


class Watched(Protocol):
    """What is needed of a guest."""

    @property
    def console_text(self) -> Console:
        """Its console."""

    @property
    def resets(self) -> list[dict[str, Any]]:
        """QMP's RESET events."""

    @property
    def reset_count(self) -> int:
        """How many there were."""

    def status(self) -> Status:
        """What its firmware knows."""

    def wait_off(self, timeout: float = ...) -> PowerOff:
        """How its QEMU ended."""


@dataclass(frozen=True)
class Listener:
    """Who is told of what happens, each in the thread that waits. None: nobody."""

    stage: Callable[[Reached], None] | None = None
    copying: Callable[[Copying], None] | None = None
    output: Callable[[str], None] | None = None
    """Of the command's output, as it comes."""
    boot_log: Callable[[str], None] | None = None
    """Of what the console shows before the command, and after the crash."""


class KdumpWatch:
    """One wait."""

    def __init__(self, guest: Watched, record: GuestRecord, listener: Listener) -> None:
        self._guest, self._record, self._listener = guest, record, listener
        self._console = guest.console_text
        self._limit = record.options.kdump_timeout
        self.stages = Stages()
        self._boots = guest.reset_count
        self._start = int(guest.resets[-1]["position"]) if guest.resets else 0
        self._command = shell.OutputStream(record.nonce)
        self._captured = shell.OutputStream(capture.nonce_of(record.nonce))
        self._words = CaptureWords()
        self._line = self._marks = self._held = ""
        self._panic: Panic | None = None
        self._began = self._news = time.monotonic()
        self._crashed_at = 0.0
        self._looked = 0.0
        self._told: Copying | None = None
        self._path: Path | None = None

    def wait(self, timeout: float | None) -> Kdump:
        """Wait for all of it. Raises as `Guest.wait_vmcore`."""
        console, position = self._console, self._start
        while True:
            text, position = console.since(position)
            self._take(text, position)
            self._look(bool(text))
            if Stage.CRASH not in self.stages:
                self._check_before(timeout)
            elif time.monotonic() - self._news > self._limit:
                self._fail(f"{self._awaited()} within {self._limit:g} s")
            if text:
                continue
            with console.changed:
                if console.end == position:
                    if console.closed:
                        return self._over()
                    console.changed.wait(_TICK)

    # What is seen

    def _take(self, text: str, position: int) -> None:
        """Take console text that ends at `position`."""
        if not text:
            return
        if Stage.LOADED not in self.stages:
            self._look_for_loader(text)
        self._take_output(self._held + text, position)
        said = self._captured.feed(text)
        if self._captured.begun:
            self._reach(Stage.INIT)
        *lines, self._line = (self._line + said)[-_HELD * 16 :].split("\n")
        self._line = self._line[-_HELD:]
        self._words.take([line.rstrip("\r") for line in lines])
        self._follow_words()

    def _take_output(self, text: str, position: int) -> None:
        """Of the command up to the panic; and of the kernels."""
        crash = self._find_panic()
        before, self._held = text, ""
        if crash is not None:
            before = text[: max(crash.position - (position - len(text)), 0)]
        elif Stage.CRASH in self.stages:
            before = ""
        elif (line := text[text.rfind("\n") + 1 :][:_HELD]).startswith("["):
            # It may be the begin of a panic's first line.
            before, self._held = text[: len(text) - len(line)], line
        after = text[len(before) : len(text) - len(self._held)]
        output = self._command.feed(before)
        if output and self._listener.output is not None:
            self._listener.output(output)
        if crash is not None:
            self._reach(Stage.CRASH, crash.message)
        for log in (self._command.log, after):
            if log and self._listener.boot_log is not None:
                self._listener.boot_log(log)

    def _look_for_loader(self, text: str) -> None:
        self._marks = (self._marks + text)[-max(_HELD, len(text)) :]
        found = shell.marker_pattern(self._record.nonce, "kdump:([^\x1e\n]*)").search(self._marks)
        if found is None:
            return
        self._marks = ""
        said = re.fullmatch(r"loaded (\d{1,6})", found[1])
        if said is None:
            raise UsageError(load_failure(found[1]))
        self._reach(Stage.LOADED, f"{said[1]} MiB reserved")

    def _find_panic(self) -> Panic | None:
        if self._panic is None:
            with self._console.changed:
                panics = list(self._console.words.panics)
            self._panic = next((panic for panic in panics if panic.position >= self._start), None)
        return self._panic

    def _follow_words(self) -> None:
        words = self._words
        if words.sdei is not None and words.vcpus and Stage.SDEI not in self.stages:
            self._look_at_sdei(words.sdei, words.vcpus)
        if words.copying is not None and words.copying != self._told:
            self._told, self._news = words.copying, time.monotonic()
            if self._listener.copying is not None:
                self._listener.copying(words.copying)
        if words.failure is not None and words.copied is None:
            what, number = words.failure
            self._fail(copy_failure(what, number, no_room(self._part)), shown=False)
        if words.copied is not None and Stage.VMCORE not in self.stages:
            try:
                self._path = finished(self._part, self._target, words.copied[0])
            except GuestError as error:
                self._fail(error.message)
            self._reach(Stage.VMCORE, str(self._path))

    def _look_at_sdei(self, version: str, vcpus: tuple[int, ...]) -> None:
        """Whether the capture kernel has found the firmware's SDEI, and the firmware has its vCPUs take events."""
        options = self._record.options
        status = self._ask()
        pes = [] if status is None else [pe for n, pe in enumerate(status["pes"]) if n in vcpus]
        where = f"vCPU{'s' if len(vcpus) > 1 else ''} {', '.join(map(str, vcpus))}"
        wanted = min(options.kdump_cpus, options.smp)
        if len(vcpus) < wanted:
            where += f", of {wanted} that were wanted"
        if not options.sdei:
            self._reach(Stage.SDEI, f"the firmware has none; {where}", vcpus)
        elif version != "none" and not any(pe["masked"] or pe["running"] for pe in pes):
            self._reach(Stage.SDEI, f"{version}; {where}", vcpus)

    def _look(self, fresh: bool) -> None:
        """At what the console does not tell, or others tell better."""
        if self._guest.reset_count != self._boots:
            self._fail(f"the machine was reset: {self._awaited()}")
        console = self._console
        if Stage.CRASH in self.stages and Stage.KERNEL not in self.stages:
            with console.changed:
                begun = console.words.begun
            if self._panic is not None and begun > self._panic.position:
                self._reach(Stage.KERNEL)
        if Stage.KERNEL in self.stages:
            self._look_for_second_panic()
        elif Stage.LOADED in self.stages and not fresh and self._may_have_begun():
            self._looked = time.monotonic()
            status = self._ask()
            if status is not None and status["kernels"] > 1:
                self._reach(Stage.KERNEL)

    def _may_have_begun(self) -> bool:
        """Whether the firmware is to be asked for another kernel: of a panic in an NMI Linux says nothing, and a kernel
        may be quiet.
        """
        if time.monotonic() - self._looked < _TICK:
            return False
        return Stage.CRASH in self.stages or self._console.claimed >= self._start

    def _look_for_second_panic(self) -> None:
        with self._console.changed:
            panics, begun = list(self._console.words.panics), self._console.words.begun
        if self._panic is not None and begun > self._panic.position:
            second = next((panic for panic in panics if panic.position > begun), None)
            if second is not None:
                self._fail(f"the capture kernel panicked: {second.message}")

    def _ask(self) -> Status | None:
        try:
            return self._guest.status()
        except SdeiError:
            return None  # it hangs, or has just ended

    def _reach(self, stage: Stage, note: str = "", vcpus: tuple[int, ...] = ()) -> None:
        """A stage is reached, and those before it that it implies and that nobody may have seen."""
        for each in Stage:
            if each not in self.stages and (each is stage or each in _IMPLIED.get(stage, _ALL)):
                if each is Stage.CRASH:
                    self._crashed_at = time.monotonic()
                since = time.monotonic() - self._crashed_at if self._crashed_at else 0.0
                self._news = time.monotonic()
                reached = self.stages.reached[each] = (
                    Reached(each, since, note, vcpus) if each is stage else Reached(each, since)
                )
                if self._listener.stage is not None:
                    self._listener.stage(reached)

    # When it does not go on

    def _check_before(self, timeout: float | None) -> None:
        """Before the crash: the boot has its own limit, the crash the caller's."""
        what = "the crash" if Stage.LOADED in self.stages else "the capture kernel to be loaded"
        if timeout is not None and time.monotonic() - self._began >= timeout:
            self._fail(f"{what} was waited for {timeout:g} s")
        if Stage.LOADED not in self.stages:
            try:
                self._console.raise_if_silent(self._record.options.boot_timeout, what)
            except GuestTimeoutError as error:
                self._fail(error.message)

    def _awaited(self) -> str:
        missing = self.stages.missing
        if missing is Stage.SDEI and Stage.INIT in self.stages:
            missing = Stage.VMCORE if Stage.VMCORE not in self.stages else Stage.OFF
        return NOT_REACHED[missing or Stage.OFF]

    def _fail(self, message: str, *, shown: bool = True) -> NoReturn:
        """`shown`: the console may have more to tell."""
        said = self._console.last_lines() if shown else None
        raise self.stages.error(message, console=said, vmcore=self._path)

    def _over(self) -> Kdump:
        """The console has closed."""
        try:
            off = self._guest.wait_off(_OFF)
        except GuestError as error:
            if Stage.CRASH in self.stages:
                self._fail(f"{error.message}; {self._awaited()}")
            raise
        if Stage.CRASH not in self.stages:
            if self._command.status is not None:
                self._fail(
                    f"the command ended with status {self._command.status} and the kernel did not crash: there is no "
                    "vmcore",
                    shown=False,
                )
            self._fail(f"the guest ended ({off.reason}) and the kernel did not crash: there is no vmcore")
        if Stage.VMCORE not in self.stages:
            self._fail(f"the guest ended ({off.reason}): {self._awaited()}")
        if not off.guest or off.reason != _POWERED_OFF:
            self._fail(f"the guest did not power off, it ended ({off.reason})")
        self._reach(Stage.OFF)
        if Stage.SDEI not in self.stages:
            self._fail("the capture kernel has brought the vmcore, and does not take SDEI events")
        assert self._path is not None
        assert self._words.copied is not None
        size, written = self._words.copied
        message = "" if self._panic is None else self._panic.message
        return Kdump(self._path, tuple(self.stages.reached[stage] for stage in Stage), message, size, written)

    @property
    def _part(self) -> Path:
        part = self._record.plan.devices.vmcore
        assert part is not None
        return part

    @property
    def _target(self) -> Path:
        target = self._record.plan.options.vmcore
        assert target is not None
        return Path(target)


_POWERED_OFF: Final = "guest-shutdown"
_ALL: Final = (Stage.LOADED, Stage.CRASH, Stage.KERNEL, Stage.INIT)
_IMPLIED: Final[dict[Stage, tuple[Stage, ...]]] = {
    Stage.LOADED: (),
    Stage.CRASH: (),  # also of a kernel that has loaded nothing yet
    Stage.KERNEL: (Stage.CRASH,),
}
"""Stages that another one implies; `_ALL` where none are said: only our own capture kernel has that init."""


def wait_vmcore(guest: Watched, record: GuestRecord, timeout: float | None, listener: Listener) -> Kdump:
    """Wait for the crash dump of a guest. Raises as `Guest.wait_vmcore`."""
    record.check_started()
    if record.plan.devices.vmcore is None:
        raise SdeiError("this guest has no capture kernel: start it with GuestOptions(kdump=True), or --kdump")
    return KdumpWatch(guest, record, listener).wait(timeout)
