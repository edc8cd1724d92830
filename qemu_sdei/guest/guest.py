"""A running guest as a context manager: what tests, scripts and the command line use.

```
with Guest(GuestOptions(smp=2)) as guest:
    print(guest.run("uname -r").output)
    guest.inject(event=0, vcpu=1, wait=True)
```
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qemu_sdei import stopped
from qemu_sdei.errors import GuestTimeoutError, SdeiError, UsageError
from qemu_sdei.guest import exit_hooks
from qemu_sdei.guest.adoption import check
from qemu_sdei.guest.end_told import Conclusion
from qemu_sdei.guest.guest_backend import GuestBackend
from qemu_sdei.guest.guest_console import GuestConsole
from qemu_sdei.guest.guest_machine import GuestMachine
from qemu_sdei.guest.guest_remote import RemoteGuest
from qemu_sdei.guest.guest_snapshots import GuestSnapshots
from qemu_sdei.guest.kdump_stages import Kdump
from qemu_sdei.guest.kdump_watch import Listener, wait_vmcore
from qemu_sdei.guest.local_migration import LocalMigration
from qemu_sdei.guest.onlookers import Typist
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
from qemu_sdei.vm import silence
from qemu_sdei.vm.description import Description
from qemu_sdei.vm.event_loop import EventLoop
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.qemu_exit import PowerOff

if TYPE_CHECKING:
    from qemu_sdei.guest.ras import GuestRas

_QMP_TIMEOUT: Final = 30.0
"""Seconds for the machine to be reset; a command has limits of its own (`qmp.py`)."""
_RESUMED_LOOK: Final = 0.1
_END_TOLD: Final = 10.0
"""Seconds from when the run directory is gone until its guest's end is known."""
_MIGRATION_TIMEOUT: Final = 120.0
_MIGRATION_EXTRA: Final = 60.0
"""Seconds, beside the waits that have limits of their own."""


class Guest(GuestMachine, GuestBackend, GuestConsole, GuestSnapshots, RemoteGuest):
    """A guest from `start` to `close`; `with` does both.

    Threads may share it: each asks the firmware by a connection of its own while another one waits there. The console
    is one, so a second thread that calls `run` meanwhile is refused (`UsageError`); `exec` takes several.

    Every wait has a limit, and ends early when the guest panics (`GuestPanicError`), or its QEMU ends
    (`LostGuestError`).
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
        self._one_closes = threading.RLock()
        self._process = os.getpid()
        self._written = self._typed = 0
        """Bytes that were given to `write`, and those of them that have reached the supervisor."""
        self._kdump: Kdump | None = None
        self._released = False

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

    def __repr__(self) -> str:
        """Its state, from what is known here: nobody is asked, so that it says it of a guest that hangs, too."""
        count = f"{self.options.smp} vCPU{'s' if self.options.smp > 1 else ''}"
        placement = self._record.placement
        if placement is None:
            return f"<Guest: {'not started' if not self.loop.started else 'not here'}, {count}>"
        if (off := placement.supervisor.power_off) is not None:
            state = f"ended ({off.reason})"
        elif not self.loop.running:
            state = "closed"
        else:
            state = "panicked" if self.console_text.panicked else "running"
        return f"<Guest {placement.directory.name!r}: {state}, {count}, {placement.directory.path}>"

    # Life

    def start(self) -> None:
        """Start QEMU and the backend; return when both answer (the guest boots on).

        Raises:
            UsageError: the options cannot be. `LaunchError`: QEMU or the backend did not come up. Nothing is left then,
            but for a guest that was to be adopted: it goes on as it was.
        """
        if self.loop.started:
            raise SdeiError("this Guest was started before: make a new one")
        self._process = os.getpid()
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
        time, nor in a child of the process (fork), whose guest it is not.
        """
        if os.getpid() != self._process:
            return
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
            if self.loop.running and not self._released:
                with contextlib.suppress(GuestTimeoutError):
                    self._beginning.undo(self.loop)
            if self.loop.running and not self._released:
                with contextlib.suppress(GuestTimeoutError):
                    self.loop.call(self._stop(), CLOSE_LIMIT)
        finally:
            self.loop.stop(CLOSE_LIMIT)
            self._beginning.discard()
            placement = self._record.placement  # a migration may have ended meanwhile
            if placement is not None:
                placement.client.close()
                placement.ram.close()
                if self._kdump is None and not self._released:  # else it is the user's file now
                    placement.plan.devices.discard()
                placement.directory.remove()
            self.console_text.close()
        exit_hooks.forget(self)

    @property
    def adopted(self) -> bool:
        """It ran before, and belonged to another process."""
        return isinstance(self._beginning, TakeOver)

    @property
    def bound(self) -> str:
        """Why it cannot be without the process that runs it, in words; "": it can (`release`)."""
        if self.placement.plan.die_with_owner:
            return "it is to end with the process that runs it (--die-with-owner)"
        if self.options.kdump is not False:
            return "whoever runs it waits for its crash dump (--kdump)"
        if self.placement.supervisor.place.where:
            return "it is on its way to another host"
        return ""

    def release(self) -> None:
        """Let go of the guest: it runs on without a supervisor process, for another one to `adopt`. This object is
        closed then.

        Raises `UsageError`: it cannot be without; see `bound`.
        """
        if why := self.bound:
            raise UsageError(f"guest {self.name!r} cannot be let go of: {why}")
        self._released = True
        self.placement.client.close()
        try:
            self.loop.call(self._let_go(), CLOSE_LIMIT)
        finally:
            self.close()

    async def _let_go(self) -> None:
        if self._migration is not None:
            await self._migration.leave()
        await self.placement.supervisor.release()

    def conclude(self, status: int, words: str) -> None:
        """Tell processes that wait for the end of this guest (`qemu-sdei wait`) how it ended; the first word counts.

        `status`: exit status for them, 0 to 255. `words`: one line.
        """
        self._record.end.conclude(Conclusion(status, words))

    def type_as(self, token: str, who: str) -> str | None:
        """Be the one whose keys reach the console, unless somebody else is: `None`, or who that is.

        `token`: by which the caller is known; `who`: what others are told of it, "" only to ask.
        """
        if not who:
            typist = self._record.seat.typist
            return None if typist is None or typist.token == token else typist.who
        other = self._record.seat.take(Typist(token, who), force=False)
        return None if other is None else other.who

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
        self._record.onlookers.first(sink)

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

    # Its end, and hardware errors

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

    @property
    def ras(self) -> GuestRas:
        """Hardware errors for it: `guest.ras.inject(Memory(...), severity="recoverable", pid=...)`."""
        if self._ras is None:
            from qemu_sdei.guest.ras_access import of_guest

            self._ras = of_guest(self, self._control)
        return self._ras
