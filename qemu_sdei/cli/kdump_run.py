"""`qemu-sdei run --kdump`: the stages of a crash dump as they come, and what came of it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.output import Progress, print_json, say
from qemu_sdei.cli.screen import raw
from qemu_sdei.errors import KdumpError, SdeiError, UsageError

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.guest.kdump_stages import Copying, Kdump, Reached

_MIB: Final = 1 << 20
_KEPT: Final = 4 << 20
"""Characters of the command's output that are kept for --json."""


def crash(guest: Guest, args: argparse.Namespace, progress: Progress) -> int:
    """Start `guest`, whose command is to crash it, and wait for the vmcore. Returns the exit code."""
    from qemu_sdei.guest.kdump_watch import Listener

    told = _Told(args, progress)
    listener = Listener(told.stage, told.copying, told.output, told.boot_log if args.verbose else None)
    guest.start()
    if not args.verbose:
        progress("booting")
    try:
        found = guest.wait_vmcore(args.timeout, listener=listener)
    except KdumpError as error:
        progress.done()
        if args.json:
            print_json(told.document(error.exit_code, None, error))
        raise
    progress.done()
    if args.json:
        print_json(told.document(0, found, None))
    else:
        _say_where(found)
    return 0


def dumped(guest: Guest, args: argparse.Namespace) -> int:
    """What came of a crash dump of a guest that was used at its console, and has ended. Returns the exit code."""
    try:
        _say_where(guest.wait_vmcore())
    except KdumpError as error:
        say(f"qemu-sdei: {error.message}", error=True)
        return error.exit_code if "crash" in error.stages else 0
    return 0


def _say_where(found: Kdump) -> None:
    from qemu_sdei.vmcore.dump import Dump

    try:
        crash = Dump.read(found.path).crash
    except UsageError as error:
        say(f"qemu-sdei: warning: {error}", error=True)
        crash = None
    if crash is not None and crash.cpu is not None:
        say(f"panicked: vCPU {crash.cpu}, PID {crash.pid}, {crash.comm}: {crash.message}", error=True)
    say(f"vmcore: {found.path} ({found.written // _MIB} of {found.size // _MIB} MiB are on disk)", error=True)


def _crash(found: Kdump) -> dict[str, Any] | None:
    from qemu_sdei.cli.vmcore_command import crash_json
    from qemu_sdei.vmcore.dump import Dump

    try:
        return crash_json(Dump.read(found.path).crash)
    except UsageError:
        return None


class _Told:
    """What is told while it goes on."""

    def __init__(self, args: argparse.Namespace, progress: Progress) -> None:
        self._args, self._progress = args, progress
        self._reached: dict[str, Reached] = {}
        self._output: list[str] = []
        self._kept = 0

    def output(self, text: str) -> None:
        """Of the command's."""
        if not self._args.json:
            self._progress.done()
            raw(sys.stdout).write(text)
            sys.stdout.flush()
        elif self._kept < _KEPT:
            self._output.append(text)
            self._kept += len(text)

    def boot_log(self, text: str) -> None:
        """Of the kernels'."""
        self._progress.done()
        raw(sys.stderr).write(text)
        sys.stderr.flush()

    def copying(self, now: Copying) -> None:
        """How far it is."""
        if sys.stderr.isatty():
            self._progress(f"copying the vmcore: {now.done // _MIB} of {now.total // _MIB} MiB")

    def stage(self, reached: Reached) -> None:
        """One is reached."""
        from qemu_sdei.guest.kdump_stages import NEXT, SENTENCES

        self._reached[reached.stage.value] = reached
        if self._args.quiet:
            return
        self._progress.done()
        note = f": {reached.note}" if reached.note else ""
        say(f"qemu-sdei: {reached.seconds:5.1f} s  {SENTENCES[reached.stage]}{note}", error=True)
        if sys.stderr.isatty() and not self._args.verbose and reached.stage in NEXT:
            self._progress(NEXT[reached.stage])

    def document(self, exit_code: int, found: Kdump | None, error: SdeiError | None) -> dict[str, Any]:
        """What --json prints."""
        from qemu_sdei.guest.kdump_stages import Stage, Stages

        stages = Stages({Stage(name): reached for name, reached in self._reached.items()})
        vmcore = found.path if found is not None else getattr(error, "vmcore", None)
        return {
            "exit_code": exit_code,
            "output": "".join(self._output),
            "stages": stages.to_json(),
            "vmcore": None if vmcore is None else str(vmcore),
            "size": None if found is None else found.size,
            "written": None if found is None else found.written,
            "crash": None if found is None else _crash(found),
            "error": None if error is None else getattr(error, "message", str(error)),
        }
