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
from qemu_sdei.guest.guest_moves import GuestMoves
from qemu_sdei.guest.guest_snapshots import GuestSnapshots
from qemu_sdei.guest.guest_typing import GuestTyping
from qemu_sdei.guest.kdump_stages import Kdump
from qemu_sdei.guest.kdump_watch import Listener, wait_vmcore
from qemu_sdei.guest.local_migration import LocalMigration
from qemu_sdei.guest.receive import WAIT, Arrival, ArrivalEvent, Listening, no_event
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.start import CLOSE_LIMIT, Beginning, Boot, TakeOver
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.migration.remote_address import Tls
from qemu_sdei.rundir import find
from qemu_sdei.saving import saved_trust
from qemu_sdei.saving.saved import Saved
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


class Guest(GuestMachine, GuestBackend, GuestTyping, GuestConsole, GuestSnapshots, GuestMoves):
    """A guest, from `start` to `close`. As a context manager (`with`) it does both.

    Threads may share a guest: while one waits for the firmware, another one uses a connection of its own. There is only
    one console, so `run` raises `UsageError` while another thread is in `run`; several threads may call `exec` at once.

    Every wait has a limit in seconds. A wait ends early when the guest panics (`GuestPanicError`) or its QEMU ends
    (`LostGuestError`). A method that needs the running guest raises `SdeiError` before `start`.
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
        """Make a guest from the directory `path`, which `save` wrote. When it is started, it continues from there.

        Args:
            path: the directory.
            name: name of the guest here; None: the first free of guest, guest-2, ...
            qemu: QEMU to use; None: the one that the guest was started with.
            trust: True: trust the directory. The guest may then use all that its options name: programs of this host,
                options for QEMU, drives, shares, a network, and files that a reset loads. False: it may use no more
                than a guest from another host (`Guest.receive`).
            progress: called with a line of text before a step that takes long.

        Raises:
            UsageError: the directory holds no saved guest.
            UntrustedError: the guest needs `trust`; `wants` says for what.
        """
        saved = replace(Saved.read(path), trusted=trust)
        if not trust:
            saved_trust.check(saved.path, saved.wants(qemu=qemu is not None))
        options = replace(saved.options, name=name, memory=saved.config.ram_size, pad_memory=False)
        return cls(options if qemu is None else replace(options, qemu=qemu), progress=progress, beginning=Boot(saved))

    @classmethod
    def adopt(cls, name: str, *, progress: Progress = no_progress) -> Guest:
        """Take over the running guest `name`, whose supervisor process was killed. From `start` on this process is its
        supervisor process.

        `console` has the guest's earlier output, as far as its log has it. `resets` is empty at first. `progress` is
        called with a line of text before a step that takes long.

        Raises:
            UsageError: there is no such guest, or it has a supervisor process.
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
        """Wait for a guest from another host. The wait begins with `start`, or `with`.

        Args:
            name: name of the guest here; None: the first free of guest, guest-2, ...
            listen: "ADDRESS:PORT" for TCP; an address other than loopback needs `tls`. None: a Unix socket, for ssh.
            tls: `Tls(cert, key, ca)`, paths of PEM files; the source must show a certificate that `ca` has signed.
            unix: path of the Unix socket; None: `receive.sock` in the run directory.
            allow: what a guest that arrives by TCP may use here: paths of disks, shares and services, "net",
                "qemu-args".
            qemu, memory_path: as in `GuestOptions`.
            timeout: seconds to wait.
            event: called with (state, facts), in another thread. States are "waiting" (facts: the socket, or the
                address and the token), "arriving", "failed" and "running".
            progress: called with a line of text before a step that takes long.

        Raises:
            UsageError: the arguments contradict each other, or cannot be used here.
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
        """Start QEMU and the backend, and return when both answer. The guest still boots then.

        Raises:
            UsageError: an option is not valid. Nothing is left behind.
            LaunchError: QEMU or the backend did not come up. Nothing is left behind; a guest that was to be adopted
                runs on.
            SdeiError: this `Guest` was started before.
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
        """End the guest, and remove all that belongs to it. It also ends a wait in another thread. The second call does
        nothing; nor does a call in a child of the process (fork), whose guest it is not.
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
        """True: the guest was taken over from another process (`adopt`)."""
        return isinstance(self._beginning, TakeOver)

    @property
    def bound(self) -> str:
        """The reason why the guest cannot run on without this process; "" if it can (see `release`)."""
        if self.placement.plan.die_with_owner:
            return "it is to end with the process that runs it (--die-with-owner)"
        if self.options.kdump is not False:
            return "whoever runs it waits for its crash dump (--kdump)"
        if self.placement.supervisor.place.where:
            return "it is on its way to another host"
        return ""

    def release(self) -> None:
        """Let the guest run on without a supervisor process. Another process can `adopt` it. This object is closed
        then.

        Raises:
            UsageError: the guest cannot run on alone; `bound` says why.
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
        """Tell processes that wait for the end of this guest (`qemu-sdei wait`) how it ended. Only the first call
        counts.

        Args:
            status: exit status that they return, 0 to 255.
            words: one line that they print.
        """
        self._record.end.conclude(Conclusion(status, words))

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
        """True: the guest is on this host: it was started, or has arrived, even if `start` has not returned yet."""
        return self._record.placement is not None or self._beginning.here

    @property
    def name(self) -> str:
        """Name of the guest, as in `qemu-sdei inject NAME`."""
        return self.placement.directory.name

    @property
    def warnings(self) -> list[str]:
        """Problems that did not harm the guest, one line each, such as no room on the disk for the trace. Complete when
        the guest has ended.
        """
        placement = self._record.placement
        return self._beginning.builder.warnings if placement is None else list(placement.supervisor.warnings)

    def _moves(self) -> LocalMigration:
        self._record.check_started()
        assert self._migration is not None
        return self._migration

    # Its end, and hardware errors

    def poweroff(self, timeout: float = 30.0) -> PowerOff:
        """Power the guest off, and wait until QEMU has ended. A guest with our shell powers itself off; else QEMU is
        told to quit.

        `timeout`: seconds to wait for the end of QEMU.

        Raises:
            GuestTimeoutError: QEMU did not end within `timeout`.
            GuestPanicError: the guest panicked and hangs.
            LostGuestError: QEMU ended by an error or a signal.
        """
        here = self.placement
        if here.supervisor.power_off is None:
            if here.plan.own_initramfs and self.options.command is None:
                self.wait_shell()
                self.write("poweroff -f\r")
            else:
                self.qmp("quit")
        return self.wait_off(timeout)

    def wait_vmcore(self, timeout: float | None = None, *, listener: Listener | None = None) -> Kdump:
        """Wait for the crash dump of a guest with `GuestOptions.kdump`: until the kernel has crashed, the capture
        kernel has copied the vmcore to the host, and the guest has powered off. A second call returns the same result.

        Args:
            timeout: seconds to wait for the crash; None: no limit. After it each stage has
                `GuestOptions.kdump_timeout`.
            listener: its methods are called as the stages are reached.

        Raises:
            KdumpError: a stage was not reached; `stages` has those that were. If the guest still runs, it runs on.
            UsageError: the capture kernel could not be loaded.
        """
        if self._kdump is None:
            self._kdump = wait_vmcore(self, self._record, timeout, listener or Listener())
        return self._kdump

    @property
    def ras(self) -> GuestRas:
        """Hardware errors for this guest, such as `guest.ras.inject(Memory(...), severity="recoverable", pid=...)`."""
        if self._ras is None:
            from qemu_sdei.guest.ras import GuestRas
            from qemu_sdei.guest.ras_access import of_guest

            self._ras = GuestRas(of_guest(self, self._control))
        return self._ras
