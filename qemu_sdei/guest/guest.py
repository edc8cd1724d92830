"""A running guest as a context manager: what tests, scripts and the command line use.

```
with Guest(GuestOptions(smp=2)) as guest:
    print(guest.run("uname -r").output)
    guest.inject(event=0, vcpu=1, wait=True)
```
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from qemu_sdei import rundir as files
from qemu_sdei import stopped
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import GuestTimeoutError, LostGuestError, SdeiError
from qemu_sdei.guest import exit_hooks
from qemu_sdei.guest import start as bringup
from qemu_sdei.guest.adoption import check
from qemu_sdei.guest.control_client import ControlClient, Injection
from qemu_sdei.guest.guest_console import GuestConsole
from qemu_sdei.guest.guest_remote import RemoteGuest
from qemu_sdei.guest.guest_snapshots import GuestSnapshots
from qemu_sdei.guest.local_migration import Mover
from qemu_sdei.guest.start import CLOSE_LIMIT
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.migration.options import SHARED, UNIX, Hold, MigrationOptions, MigrationResult, Report, no_report
from qemu_sdei.migration.retry import longest
from qemu_sdei.rundir import RunDirectory, Running, find
from qemu_sdei.saving import saved_trust
from qemu_sdei.saving.saved import Saved
from qemu_sdei.vm import silence
from qemu_sdei.vm.description import Description
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.qemu_exit import PowerOff
from qemu_sdei.vm.supervisor import Supervisor

T = TypeVar("T")

_QMP_TIMEOUT: Final = 30.0
"""Seconds for the machine to be reset; a command has limits of its own (`qmp.py`)."""
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

    def __init__(self, options: GuestOptions | None = None, *, progress: Progress = no_progress) -> None:
        """Describe a guest. Nothing happens before `start`; `progress` is told what takes long."""
        super().__init__(options or GuestOptions())
        self._progress = progress
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._supervisor: Supervisor | None = None
        self._directory: RunDirectory | None = None
        self._ram_fd: int | None = None
        self._client: ControlClient | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._config: GuestConfig | None = None
        self._mover: Mover | None = None
        self._saved: Saved | None = None
        self._ownerless: Running | None = None
        self._written = self._typed = 0
        """Bytes that were given to `write`, and those of them that have reached the supervisor."""

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
        arrives from another host (`Guest.receive`), and must have checksums.

        Raises:
            UsageError: there is no saved guest. `UntrustedError`: it wants more; `wants` says what.
        """
        saved = replace(Saved.read(path), trusted=trust)
        if not trust:
            saved_trust.check(saved.path, saved.wants(qemu=qemu is not None), summed=saved.files is not None)
        options = replace(saved.options, name=name, memory=saved.config.ram_size, pad_memory=False)
        guest = cls(options if qemu is None else replace(options, qemu=qemu), progress=progress)
        guest._saved = saved
        guest._nonce = saved.nonce
        return guest

    @classmethod
    def adopt(cls, name: str, *, progress: Progress = no_progress) -> Guest:
        """The running guest `name`, whose owner was killed: from `start` on it belongs to this process.

        What it printed before, as far as its log has it, is in `console`; `resets` begins anew.

        Raises:
            UsageError: there is no such guest, or it has an owner.
        """
        found = find(name)
        check(found)
        guest = cls(replace(Description.read(found.path).plan.options, name=name), progress=progress)
        guest._ownerless = found
        return guest

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
        if self._loop is not None:
            raise SdeiError("this Guest was started before: make a new one")
        exit_hooks.register(self)
        try:
            if self._ownerless is not None:
                bringup.take_over(self, self._ownerless.name, self._ownerless.identity)
            else:
                self._bring_up()
        except BaseException:
            if self._ownerless is not None:
                self._release()
            self.close()
            raise

    def _bring_up(self) -> None:
        bringup.start(self)

    def _call(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run `work` in the event loop and wait for it."""
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            why = "" if self._directory is None else stopped.reason(self._directory.path)
            raise GuestTimeoutError(f"the guest's processes did not do it within {timeout:g} s{why}") from None
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """End the guest, whatever it is doing, and leave nothing of it; does nothing the second time."""
        try:
            self._close()
        except BaseException:
            # A signal's exception came in the middle of it: finish first. Every step can be done again.
            self._close()
            raise

    def _release(self) -> None:
        """Let go of a guest that could not be adopted."""
        supervisor = self._supervisor
        if supervisor is not None and supervisor.failure is None and supervisor.power_off is None:
            with contextlib.suppress(Exception):
                self._call(supervisor.release(), CLOSE_LIMIT)
            self._supervisor = self._directory = None

    def _close(self) -> None:
        try:
            if self._client is not None:
                self._client.close()
            if self._supervisor is not None and self._loop is not None and self._loop.is_running():
                with contextlib.suppress(GuestTimeoutError):
                    self._call(self._stop(), CLOSE_LIMIT)
        finally:
            if self._loop is not None and self._thread is not None and self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(CLOSE_LIMIT)
                if not self._thread.is_alive():
                    self._loop.close()
            if self._ram_fd is not None:
                os.close(self._ram_fd)
                self._ram_fd = None
            if self._directory is not None:
                self._directory.remove()
            self.console_text.close()
        exit_hooks.forget(self)

    async def _stop(self) -> None:
        assert self._supervisor is not None
        if self._mover is not None:
            await self._mover.close()
        await self._supervisor.stop()

    def _running(self) -> Supervisor:
        if self._supervisor is None or self._plan is None:
            raise SdeiError("the guest is not started: use it in a `with`, or call start()")
        return self._supervisor

    @property
    def name(self) -> str:
        """The guest's name, for `qemu-sdei inject NAME`."""
        self._running()
        assert self._directory is not None
        return self._directory.name

    @property
    def command_line(self) -> list[str]:
        """QEMU's command line."""
        return self._running().command

    @property
    def qemu_pid(self) -> int | None:
        """Process id of QEMU."""
        return self._running().qemu_pid

    @property
    def backend_pid(self) -> int | None:
        """Process id of the backend that serves now; another one after it was killed."""
        return self._running().backend_pid

    @property
    def backend_starts(self) -> int:
        """How often a backend was started: 1 when it never died."""
        return self._running().backend_starts

    @property
    def warnings(self) -> list[str]:
        """What went wrong without harm to the guest, such as a trace for which the disk had no room; after its end."""
        return [] if self._supervisor is None else list(self._supervisor.warnings)

    # Console (see also GuestConsole)

    def write(self, text: str | bytes) -> None:
        """Type at the guest's console."""
        supervisor = self._running()
        assert self._loop is not None
        data = text.encode(errors="surrogateescape") if isinstance(text, str) else text

        def arrive() -> None:
            supervisor.write(data)
            self._typed += len(data)

        with contextlib.suppress(RuntimeError):  # the loop is closed: so is the console
            self._loop.call_soon_threadsafe(arrive)
            self._written += len(data)

    def input_backlog(self) -> int:
        """Bytes, about, that were typed and that the guest has no room for yet."""
        on_the_way = self._written - self._typed  # first: what arrives meanwhile is counted twice, and never missed
        return on_the_way + (0 if self._supervisor is None else self._supervisor.backlog)

    def attach(self, sink: Callable[[bytes], None] | None) -> None:
        """Have the console's raw bytes given to `sink` too, in another thread; it must not block. None ends it."""
        self._sink = sink
        if self._supervisor is not None:
            self._supervisor.attach(sink)

    # Firmware

    def inject(self, event: int, vcpu: int, *, wait: bool = False, timeout: float = 5.0) -> Injection:
        """Trigger SDEI event `event` on vCPU `vcpu`; with `wait`, return when its handler completed.

        Raises:
            UsageError: no such event or vCPU. `NotDeliveredError`: it is not delivered; the message says why.
            LostGuestError: the guest has ended.
        """
        return self._ask(lambda control: control.inject(event, vcpu, wait=wait, timeout=timeout))

    def status(self) -> dict[str, Any]:
        """The state of vCPUs and events: what `qemu-sdei status --json` prints."""
        return self._ask(ControlClient.status)

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
        assert self._directory is not None
        return ControlClient(self._directory / files.CONTROL, identity=known)

    def _control(self) -> ControlClient:
        supervisor = self._running()
        with self.console_text.changed:
            over = supervisor.power_off
        if over is not None and over.returncode:
            self.console_text.raise_if_over(self.console_text.end, "the backend's answer")
        if over is not None or self._client is None:
            raise LostGuestError("the guest has ended" + (f" ({over.reason})" if over else ""))
        return self._client

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
        self._running()
        options = MigrationOptions(route, verify, hold, timeout, transport, multifd)
        assert self._mover is not None
        starting = silence.longest(self.options.start_timeout)
        once = timeout + starting + _MIGRATION_EXTRA + (hold.timeout if hold is not None else 0)
        return self._call(self._mover.migrate(name, options, report), longest(options, once))

    # Machine

    def qmp(self, command: str, **arguments: object) -> Any:
        """Execute a QMP command and return what it returns. An underscore in a name stands for QMP's hyphen.

        Raises `GuestError` with QEMU's words, `LostGuestError` when QEMU is gone.
        """
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        return self._call(self._running().execute(command, words), silence.longest(_QMP_TIMEOUT))

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
        supervisor = self._running()
        assert self._plan is not None
        if supervisor.power_off is None:
            if self._plan.own_initramfs and self.options.command is None:
                self.wait_shell()
                self.write("poweroff -f\r")
            else:
                self.qmp("quit")
        return self.wait_off(timeout)

    def wait_off(self, timeout: float = 60.0) -> PowerOff:
        """Wait until QEMU has ended, and say why it did.

        Raises:
            GuestTimeoutError: not within `timeout` seconds. `GuestPanicError`: the guest panicked and hangs.
            LostGuestError: QEMU ended by an error or a signal.
        """
        deadline = time.monotonic() + timeout
        with self.console_text.changed:
            # Looked up each time: the guest may migrate meanwhile.
            while (off := self._running().power_off) is None:
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
        return self._running().power_off

    @property
    def resets(self) -> list[dict[str, Any]]:
        """QMP's RESET events, the newest 256: {guest, reason, position (of the console then)}."""
        with self.console_text.changed:
            return self._running().resets.newest()

    @property
    def reset_count(self) -> int:
        """How often the machine was reset, by the guest or from outside, since its first boot."""
        return self._running().resets.count
