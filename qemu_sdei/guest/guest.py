"""A running guest as a context manager: what tests, scripts and the command line use.

```
with Guest(GuestOptions(smp=2)) as guest:
    print(guest.run("uname -r").output)
    guest.inject(event=0, vcpu=1, wait=True)
```
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from qemu_sdei import rundir as files
from qemu_sdei import stopped
from qemu_sdei.errors import GuestTimeoutError, LostGuestError, SdeiError
from qemu_sdei.guest import exit_hooks, machine_control
from qemu_sdei.guest.adoption import check
from qemu_sdei.guest.control_client import ControlClient, Injection
from qemu_sdei.guest.guest_console import GuestConsole
from qemu_sdei.guest.guest_firmware import GuestFirmware
from qemu_sdei.guest.guest_remote import RemoteGuest
from qemu_sdei.guest.guest_snapshots import GuestSnapshots
from qemu_sdei.guest.kdump_stages import Kdump
from qemu_sdei.guest.kdump_watch import Listener, wait_vmcore
from qemu_sdei.guest.local_migration import LocalMigration
from qemu_sdei.guest.placement import Placement
from qemu_sdei.guest.receive import WAIT, Arrival, ArrivalEvent, Listening, no_event
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.start import CLOSE_LIMIT, Beginning, Boot, TakeOver
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.migration.options import SHARED, UNIX, Hold, MigrationOptions, MigrationResult, Report, no_report
from qemu_sdei.migration.remote_address import Tls
from qemu_sdei.migration.retry import longest
from qemu_sdei.rundir import find
from qemu_sdei.saving import saved_trust
from qemu_sdei.saving.saved import Saved
from qemu_sdei.symbols.sources import booted_file
from qemu_sdei.vm import silence
from qemu_sdei.vm.description import Description
from qemu_sdei.vm.event_loop import EventLoop
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.qemu_exit import PowerOff

if TYPE_CHECKING:
    from qemu_sdei.explain.explanation import Explanation
    from qemu_sdei.guest.nmi import Nmi
    from qemu_sdei.guest.ras import GuestRas
    from qemu_sdei.symbols.symbolizer import Symbolizer

T = TypeVar("T")

_QMP_TIMEOUT: Final = 30.0
"""Seconds for the machine to be reset; a command has limits of its own (`qmp.py`)."""
_RESUMED_LOOK: Final = 0.1
_END_TOLD: Final = 10.0
"""Seconds from when the run directory is gone until its guest's end is known."""
_MIGRATION_TIMEOUT: Final = 120.0
_MIGRATION_EXTRA: Final = 60.0
"""Seconds, beside the waits that have limits of their own."""


class Guest(GuestConsole, GuestSnapshots, RemoteGuest):
    """A guest from `start` to `close`; `with` does both.

    Methods may be called from any one thread. Every wait has a limit, and ends early when the guest panics
    (`GuestPanicError`), or its QEMU ends (`LostGuestError`).
    """

    def __init__(
        self,
        options: GuestOptions | None = None,
        *,
        progress: Progress = no_progress,
        beginning: Beginning | None = None,
    ) -> None:
        """Describe a guest. Nothing happens before `start`; `progress` is told what takes long.

        `beginning`: how it comes to run; None: it is booted.
        """
        record = GuestRecord(options or GuestOptions(), progress)
        super().__init__(record)
        self.loop = EventLoop(lambda: "" if (path := self._path()) is None else stopped.reason(path))
        """Where its processes are looked after; a thread of its own."""
        self._beginning: Beginning = beginning or Boot()
        self._migration: LocalMigration | None = None
        self._ras: GuestRas | None = None
        self._firmware: GuestFirmware | None = None
        self._one_closes = threading.RLock()
        self._written = self._typed = 0
        """Bytes that were given to `write`, and those of them that have reached the supervisor."""
        self._kdump: Kdump | None = None

    @classmethod
    def saved(
        cls,
        path: str | Path,
        *,
        name: str | None = None,
        qemu: str | Path | None = None,
        trust: bool = False,
        progress: Progress = no_progress,
    ) -> Guest:
        """A guest that goes on, when it is started, where `save` wrote it down into the directory `path`.

        `qemu`: the QEMU to use, where that is not to be the one that the guest was started with.

        `trust`: it may have what its options say, which whoever made the directory wrote: programs that are run here,
        options for QEMU, drives, shares, a network, files that a reset loads. Without it, it may have what one may that
        arrives from another host (`Guest.receive`).

        Raises:
            UsageError: there is no saved guest. `UntrustedError`: it wants more; `wants` says what.
        """
        saved = replace(Saved.read(path), trusted=trust)
        if not trust:
            saved_trust.check(saved.path, saved.wants(qemu=qemu is not None))
        options = replace(saved.options, name=name, memory=saved.config.ram_size, pad_memory=False)
        return cls(options if qemu is None else replace(options, qemu=qemu), progress=progress, beginning=Boot(saved))

    @classmethod
    def adopt(cls, name: str, *, progress: Progress = no_progress) -> Guest:
        """The running guest `name`, whose owner was killed: from `start` on it belongs to this process.

        What it printed before, as far as its log has it, is in `console`; `resets` begins anew.

        Raises:
            UsageError: there is no such guest, or it has an owner.
        """
        found = find(name)
        check(found)
        options = replace(Description.read(found.path).plan.options, name=name)
        return cls(options, progress=progress, beginning=TakeOver(found))

    @classmethod
    def receive(
        cls,
        *,
        name: str | None = None,
        listen: str | None = None,
        tls: Tls | None = None,
        unix: str | Path | None = None,
        allow: tuple[str, ...] = (),
        qemu: str | Path | None = None,
        memory_path: str | Path | None = None,
        timeout: float = WAIT,
        event: ArrivalEvent = no_event,
        progress: Progress = no_progress,
    ) -> Guest:
        """A guest that arrives from another host: `start`, or `with`, waits for it.

        Args:
            name: its name here; None: the first free of guest, guest-2, ...
            listen: "ADDRESS:PORT" for TCP; other addresses than loopback need `tls`. None: a unix socket, for ssh.
            tls: `Tls(cert, key, ca)`, paths of PEM files; the source must show a certificate that `ca` has signed.
            unix: path of that socket; None: `receive.sock` in the run directory.
            allow: what a guest that comes by TCP may use here: paths of disks, shares and services, "net", "qemu-args".
            qemu, memory_path: as in `GuestOptions`.
            timeout: seconds to wait.
            event: is told (state, facts) in another thread: waiting, with the socket or the address and the token;
                arriving; failed; running.

        Raises:
            UsageError: the arguments cannot be.
        """
        options = GuestOptions(name=name, qemu=qemu, memory_path=memory_path)
        arrival = Arrival(Listening.of(listen, tls, unix, allow), timeout=timeout, event=event)
        return cls(options, progress=progress, beginning=arrival)

    def __enter__(self) -> Guest:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Life

    def start(self) -> None:
        """Start QEMU and the backend; return when both answer (the guest boots on).

        Raises:
            UsageError: the options cannot be. `LaunchError`: QEMU or the backend did not come up. Nothing is left then,
            but for a guest that was to be adopted: it goes on as it was.
        """
        if self.loop.started:
            raise SdeiError("this Guest was started before: make a new one")
        exit_hooks.register(self)
        try:
            placement = self._beginning.begin(self._record, self.loop)
            self._record.settle(placement)
            self._migration = LocalMigration(self._record)
            # One that came from another host is here, also if nobody can ask for it.
            with contextlib.suppress(OSError) if self._beginning.here else contextlib.nullcontext():
                self.loop.call(self._migration.open(placement.directory), CLOSE_LIMIT)
            self._beginning.begun()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the guest, or the wait for it, whatever it is doing, and leave nothing of it; does nothing the second
        time.
        """
        with self._one_closes:
            try:
                self._close()
            except BaseException:
                # A signal's exception came in the middle of it: finish first. Every step can be done again.
                self._close()
                raise

    def _close(self) -> None:
        try:
            if self._record.placement is not None:
                self._record.placement.client.close()  # whoever waits by it need not any more
            if self.loop.running:
                with contextlib.suppress(GuestTimeoutError):
                    self._beginning.undo(self.loop)
            if self.loop.running:
                with contextlib.suppress(GuestTimeoutError):
                    self.loop.call(self._stop(), CLOSE_LIMIT)
        finally:
            self.loop.stop(CLOSE_LIMIT)
            self._beginning.discard()
            placement = self._record.placement  # a migration may have ended meanwhile
            if placement is not None:
                placement.client.close()
                placement.ram.close()
                if self._kdump is None:  # else it is the user's file now
                    placement.plan.devices.discard()
                placement.directory.remove()
            self.console_text.close()
        exit_hooks.forget(self)

    async def _stop(self) -> None:
        if self._migration is not None:
            await self._migration.close()
        if self._record.placement is not None:
            await self._record.placement.supervisor.stop()

    def _path(self) -> Path | None:
        placement = self._record.placement
        directory = self._beginning.builder.directory if placement is None else placement.directory
        return None if directory is None else directory.path

    @property
    def placement(self) -> Placement:
        """Where it is now: run directory, plan, RAM, processes. Raises `SdeiError`: it is not started."""
        return self._record.here

    @property
    def here(self) -> bool:
        """It runs here: it was started, or has arrived, although `start` may not have returned yet."""
        return self._record.placement is not None or self._beginning.here

    @property
    def name(self) -> str:
        """The guest's name, for `qemu-sdei inject NAME`."""
        return self.placement.directory.name

    @property
    def command_line(self) -> list[str]:
        """QEMU's command line."""
        return self.placement.supervisor.command

    @property
    def qemu_pid(self) -> int | None:
        """Process id of QEMU."""
        return self.placement.supervisor.qemu_pid

    @property
    def backend_pid(self) -> int | None:
        """Process id of the backend that serves now; another one after it was killed."""
        return self.placement.supervisor.backend_pid

    @property
    def backend_starts(self) -> int:
        """How often a backend was started: 1 when it never died."""
        return self.placement.supervisor.backend_starts

    @property
    def warnings(self) -> list[str]:
        """What went wrong without harm to the guest, such as a trace for which the disk had no room; after its end."""
        placement = self._record.placement
        return self._beginning.builder.warnings if placement is None else list(placement.supervisor.warnings)

    # Console (see also GuestConsole)

    def write(self, text: str | bytes) -> None:
        """Type at the guest's console."""
        supervisor = self.placement.supervisor
        data = text.encode(errors="surrogateescape") if isinstance(text, str) else text

        def arrive() -> None:
            supervisor.write(data)
            self._typed += len(data)

        if self.loop.soon(arrive):  # else it is closed: so is the console
            self._written += len(data)

    def input_backlog(self) -> int:
        """Bytes, about, that were typed and that the guest has no room for yet."""
        on_the_way = self._written - self._typed  # first: what arrives meanwhile is counted twice, and never missed
        placement = self._record.placement
        return on_the_way + (0 if placement is None else placement.supervisor.backlog)

    def attach(self, sink: Callable[[bytes], None] | None) -> None:
        """Have the console's raw bytes given to `sink` too, in another thread; it must not block. None ends it."""
        self._record.sink = sink
        if self._record.placement is not None:
            self._record.placement.supervisor.attach(sink)

    # Firmware

    def inject(
        self,
        event: int | str,
        vcpu: int | None = None,
        *,
        wait: bool = False,
        timeout: float = 5.0,
        when_registered: float | None = None,
    ) -> Injection:
        """Trigger an SDEI event; with `wait`, return when its handler completed.

        Args:
            event: number, or name as the machine description has it, such as `ghes`.
            vcpu: that of a private event; None: a shared one, on any.
            wait: for the handler, `timeout` seconds at most.
            timeout: see `wait`.
            when_registered: first wait until the guest has registered and enabled it, so many seconds at most.

        Raises:
            UsageError: no such event or vCPU. `NotDeliveredError`: it is not delivered; the message says why.
            LostGuestError: the guest has ended.
        """
        from qemu_sdei.guest import event_targets

        def ask(control: ControlClient) -> Injection:
            number = event_targets.number(control, event)
            if when_registered is not None:
                event_targets.wait_until_listens(control, number, vcpu, when_registered)
            return control.inject(number, vcpu, wait=wait, timeout=timeout)

        return self._ask(ask)

    def nmi(self, vcpu: int | None = None, *, by: str | None = None) -> Nmi:
        """Give it an NMI, by AGDI, event 0 or a bound watchdog: whichever it has registered and enabled first of these.

        Args:
            vcpu: which one is to take it, where that can be chosen; None: any.
            by: one of `qemu_sdei.guest.nmi.WAYS`, to have no other tried.

        Raises:
            NotDeliveredError: nothing of it takes one; the message says which kernel option would bring a handler.
            UsageError: there is no such vCPU or way. `LostGuestError`: it has ended.
        """
        from qemu_sdei.guest.nmi import give

        return self._ask(lambda control: give(control, vcpu, by))

    def status(self) -> dict[str, Any]:
        """The state of vCPUs and events: what `qemu-sdei status --json` prints."""
        return self._ask(ControlClient.status)

    @property
    def ras(self) -> GuestRas:
        """Hardware errors for it: `guest.ras.inject(Memory(...), severity="recoverable", pid=...)`."""
        if self._ras is None:
            from qemu_sdei.guest.ras_access import of_guest

            self._ras = of_guest(self, self._control)
        return self._ras

    @property
    def firmware(self) -> GuestFirmware:
        """What its firmware does wrong on purpose, to look at and to change:
        `guest.firmware.on("CPU_OFF").nth(1).returns("DENIED")`, `guest.firmware.clear()`.
        """
        if self._firmware is None:
            self._firmware = GuestFirmware(self._ask, lambda: booted_file(self.placement.config.boot))
        return self._firmware

    def explain(self, symbolizer: Symbolizer | None = None) -> Explanation:
        """What is the matter with it: which vCPU holds which event, why pending events wait, what is wrong and what to
        do, as `qemu-sdei explain` says. Also when it hangs, or its backend does: in some 5 s at most.

        `symbolizer`: names for addresses (`qemu_sdei.symbols`).
        """
        from qemu_sdei.explain.explanation import explain
        from qemu_sdei.guest.picture_taking import take_picture, with_names

        directory = self.placement.directory
        here = files.Running(directory.name, directory.path, os.getpid(), identity=files.identity(directory.path))
        picture = take_picture(here, ended=self.power_off is not None)
        return explain(picture if symbolizer is None else with_names(picture, symbolizer))

    def trace(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest trace records of the backend, oldest first."""
        return self._ask(lambda control: control.trace(limit))

    def _kernels(self) -> int | None:
        try:
            found = self._control().hello().get("kernels")
        except SdeiError:
            return None
        return found if isinstance(found, int) else None

    def client(self) -> ControlClient:
        """A connection of its own to the backend's control socket, for another thread or for events."""
        known = self._control().identity
        return ControlClient(self.placement.directory / files.CONTROL, identity=known)

    def _control(self) -> ControlClient:
        here = self.placement
        with self.console_text.changed:
            over = here.supervisor.power_off
        if over is not None and over.returncode:
            self.console_text.raise_if_over(self.console_text.end, "the backend's answer")
        if over is not None:
            raise LostGuestError(f"the guest has ended ({over.reason})")
        return here.client

    def _ask(self, question: Callable[[ControlClient], T]) -> T:
        """Ask the backend. The end of a guest is told by what is known of it, and not by its socket that is gone."""
        control = self._control()
        try:
            return question(control)
        except LostGuestError:
            if not control.path.parent.is_dir():
                console = self.console_text
                with console.changed:
                    console.changed.wait_for(lambda: console.closed, _END_TOLD)
                    if console.closed:
                        console.raise_if_over(console.end, "the backend's answer")
            raise

    # Migration

    def _moves(self) -> LocalMigration:
        self._record.check_started()
        assert self._migration is not None
        return self._migration

    def migrate(
        self,
        name: str | None = None,
        *,
        route: str = SHARED,
        verify: bool = True,
        hold: Hold | None = None,
        timeout: float = _MIGRATION_TIMEOUT,
        transport: str = UNIX,
        multifd: int = 0,
        report: Report = no_report,
    ) -> MigrationResult:
        """Move the running guest to a new QEMU and a new backend on this host; this object is the guest there then.

        Args:
            name: its name there; None: the first free of its own without number, its own-2, ...
            route: "shared": both QEMUs map the same RAM; "copy": it is sent to new memory; "live": while the vCPUs run;
                "postcopy": partly after they run on at the destination.
            verify: where RAM is copied, compare and repair it before the guest goes on.
            hold: migrate when an event is in a given state.
            timeout: seconds that QEMU may take for the transfer.
            transport: "unix" or "tcp" (loopback), between the two QEMUs.
            multifd: number of connections that RAM is sent by in parallel; 0: none of its own.
            report: is told of progress, in another thread.

        Raises:
            UsageError: it cannot be done. `GuestError`: it did not work, and the guest goes on where it was;
            `LostGuestError`: it does not.
        """
        options = MigrationOptions(route, verify, hold, timeout, transport, multifd)
        starting = silence.longest(self.options.start_timeout)
        once = timeout + starting + _MIGRATION_EXTRA + (hold.timeout if hold is not None else 0)
        return self.loop.call(self._moves().migrate(name, options, report), longest(options, once))

    # Machine

    def qmp(self, command: str, **arguments: object) -> Any:
        """Execute a QMP command and return what it returns. An underscore in a name stands for QMP's hyphen.

        Raises `GuestError` with QEMU's words, `LostGuestError` when QEMU is gone.
        """
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self.loop.call(self.placement.supervisor.execute(command, words), silence.longest(_QMP_TIMEOUT))

    def wait_resumed(self, timeout: float | None = None) -> None:
        """Wait until the vCPUs of a guest run that was started paused (`GuestOptions.paused`): until somebody resumes
        it, by `qemu-sdei resume` or by `qmp("cont")`. Returns at once where it was not.

        Args:
            timeout: seconds; None: no limit.

        Raises `GuestTimeoutError`, and as `qmp`.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self.qmp("query-status")["status"] == machine_control.UNSTARTED:
            if time.monotonic() > deadline:
                raise self.console_text.timeout_error(f"nobody resumed the paused guest within {timeout:g} s")
            time.sleep(_RESUMED_LOOK)

    def reset(self) -> None:
        """Press the machine's reset button (QMP `system_reset`); the guest knows nothing of it before.

        Returns when the machine was reset. Raises as `qmp`, and `GuestTimeoutError`.
        """
        boots = self.reset_count
        self.qmp("system_reset")
        with self.console_text.changed:
            done = self.console_text.changed.wait_for(lambda: self.reset_count != boots, _QMP_TIMEOUT)
        if not done:
            raise self.console_text.timeout_error(f"the machine was not reset within {_QMP_TIMEOUT:g} s")

    def poweroff(self, timeout: float = 30.0) -> PowerOff:
        """Have the guest power itself off by its shell where it has one, else end QEMU; wait for it."""
        here = self.placement
        if here.supervisor.power_off is None:
            if here.plan.own_initramfs and self.options.command is None:
                self.wait_shell()
                self.write("poweroff -f\r")
            else:
                self.qmp("quit")
        return self.wait_off(timeout)

    def wait_vmcore(self, timeout: float | None = None, *, listener: Listener | None = None) -> Kdump:
        """Wait until this guest, started with `kdump`, has crashed, its capture kernel has brought the vmcore here, and
        it has powered off. The second time it returns the same.

        `timeout`: seconds until the crash; None: no limit. From then on each stage has `GuestOptions.kdump_timeout`.
        `listener`: who is told of what happens meanwhile.

        Raises:
            KdumpError: it comes no further; the error says how far it came. The guest runs on if it did.
            UsageError: the capture kernel could not be loaded.
        """
        if self._kdump is None:
            self._kdump = wait_vmcore(self, self._record, timeout, listener or Listener())
        return self._kdump

    def wait_off(self, timeout: float = 60.0) -> PowerOff:
        """Wait until QEMU has ended, and say why it did.

        Raises:
            GuestTimeoutError: not within `timeout` seconds. `GuestPanicError`: the guest panicked and hangs.
            LostGuestError: QEMU ended by an error or a signal.
        """
        deadline = time.monotonic() + timeout
        with self.console_text.changed:
            # Looked up each time: the guest may migrate meanwhile.
            while (off := self.placement.supervisor.power_off) is None:
                if self.console_text.panicked:
                    self.console_text.raise_if_over(0, "the guest to power off")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self.console_text.timeout_error(f"the guest did not power off within {timeout:g} s")
                self.console_text.changed.wait(min(left, 0.5))
            if off.returncode != 0:
                self.console_text.raise_if_over(self.console_text.end, "the guest to power off")
            return off

    @property
    def power_off(self) -> PowerOff | None:
        """How QEMU ended; None while it runs."""
        return self.placement.supervisor.power_off

    @property
    def resets(self) -> list[dict[str, Any]]:
        """QMP's RESET events, the newest 256: {guest, reason, position (of the console then)}."""
        with self.console_text.changed:
            return self.placement.supervisor.resets.newest()

    @property
    def reset_count(self) -> int:
        """How often the machine was reset, by the guest or from outside, since its first boot."""
        return self.placement.supervisor.resets.count
