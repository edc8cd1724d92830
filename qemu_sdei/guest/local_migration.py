"""A guest's migration to another QEMU and backend of the same owner: what `Guest.migrate` and the owner socket do.

Owner and console stay: the terminal, the `with` block or the script that the guest was started by goes on with the
guest where it is now. Everything here runs in the guest's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import rundir as files
from qemu_sdei.config import RAM_BASE
from qemu_sdei.errors import (
    GuestError,
    LaunchError,
    LostGuestError,
    NotDeliveredError,
    SdeiError,
    StandsStillError,
    UsageError,
)
from qemu_sdei.guest import remote_migration
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest_snapshots import Snapshooter
from qemu_sdei.guest.remote_migration import RemoteMover
from qemu_sdei.guest.supervisor_socket import OwnerSocket, Progress
from qemu_sdei.host import memory
from qemu_sdei.migration.handover import Handover, LostInPostcopyError
from qemu_sdei.migration.options import SHARED, Hold, MigrationOptions, MigrationResult, Report
from qemu_sdei.migration.remote_address import Address
from qemu_sdei.migration.remote_source import RemoteResult
from qemu_sdei.migration.retry import try_again
from qemu_sdei.migration.run_to_completion import finish
from qemu_sdei.monitor import layout
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.saving.saved import described, save
from qemu_sdei.vm import machine_type
from qemu_sdei.vm.supervisor import Supervisor

if TYPE_CHECKING:
    from qemu_sdei.config import GuestConfig
    from qemu_sdei.guest.guest import Guest

_FINISH: Final = 3.0
"""Seconds for a migration that was cancelled to end by itself."""
_COPIED: Final = (files.MONITOR, files.INITRD)
"""What a reset of the guest needs at the destination as well."""


class Mover:
    """Migrates one guest, one migration at a time."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._task: asyncio.Task[Any] | None = None
        self.snapshooter = Snapshooter(guest, self)
        self._remote = RemoteMover(guest)
        self._owner = OwnerSocket(
            {
                "migrate": self._requested,
                "migrate-to": self._requested_away,
                "resume": self._resume_requested,
                "save": self._save_requested,
                "snapshot": self.snapshooter.requested,
            }
        )

    async def open(self, directory: RunDirectory) -> None:
        """Take requests of other processes, at the run directory's owner socket."""
        await self._owner.open(directory / files.OWNER)

    async def close(self) -> None:
        """End a migration that is under way, and take no requests any more."""
        await self.cancel()
        await self._owner.close()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing else that has the guest stand still goes on at the same time. Raises `UsageError`: it does."""
        if self._task is not None:
            raise UsageError("the guest is being migrated, or saved, already")
        self._task = asyncio.current_task()
        try:
            yield
        finally:
            self._task = None

    async def _requested(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        name = request.get("name")
        if name is not None and not isinstance(name, str):
            raise UsageError("the name of the destination is a string")
        options = MigrationOptions.from_json(request.get("options"))
        result = await self.migrate(name, options, lambda step: progress(step.to_json()))
        return result.to_json()

    async def _requested_away(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        address, options = remote_migration.request(request)
        return (await self.migrate_to(address, options, lambda step: progress(step.to_json()))).to_json()

    async def _resume_requested(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        await self.resume()
        return {}

    async def resume(self) -> None:
        """See `RemoteMover.resume`."""
        await self._remote.resume()

    async def migrate_to(self, address: Address, options: MigrationOptions, report: Report) -> RemoteResult:
        """See `RemoteMover.migrate`."""
        with self.alone():
            return await self._remote.migrate(address, options, report)

    async def cancel(self) -> None:
        """End a migration that is under way, because the guest ends; up to a certain point it goes on where it was.

        Past that, where it may take long to have the guest's RAM fetched (postcopy), that is made to fail.
        """
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=_FINISH)
        if not done:
            with contextlib.suppress(SdeiError):
                self._guest._running().signal_qemu(signal.SIGKILL)
        with contextlib.suppress(BaseException):
            await task

    async def _save_requested(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        path, end = request.get("path"), request.get("end", False)
        if not isinstance(path, str) or not path.startswith("/") or not isinstance(end, bool):
            raise UsageError("save wants the absolute path of a directory")
        # Its form is that of a migration's.
        hold = MigrationOptions.from_json({"hold": request.get("hold")}).hold
        size = await self.save(path, lambda step: progress(step.to_json()), end=end, hold=hold)
        return {"path": path, "bytes": size}

    async def save(
        self, path: str, report: Report, *, end: bool = False, hold: Hold | None = None, timeout: float = 120.0
    ) -> int:
        """See `saved.save`."""
        guest = self._guest
        with self.alone():
            source = guest._running()
            where = guest.options.memory_path
            if where is not None and guest._ram_fd is not None and guest._config is not None:
                memory.check_sent(guest._ram_fd, guest._config.ram_size, 0, Path(where))
            meta = {"options": described(guest.options, source.plan.reboot), "nonce": guest._nonce}
            return await save(source, path, meta, report, timeout=timeout, end=end, hold=hold)

    async def migrate(self, name: str | None, options: MigrationOptions, report: Report) -> MigrationResult:
        """Migrate to a new run directory `name` (None: the first free name).

        Raises:
            UsageError: it cannot be done. `GuestError`: it did not work, and the guest goes on where it was;
            `LostGuestError`: it does not.
        """
        with self.alone():
            source = self._guest._running()
            try:
                return await try_again(lambda early: self._migrate(name, options, report, early), options, report)
            except NotDeliveredError as error:
                raise self._explain(source, error) from None

    async def _migrate(
        self, name: str | None, options: MigrationOptions, report: Report, early: bool
    ) -> MigrationResult:
        guest = self._guest
        source = guest._running()
        old_fd = guest._ram_fd
        assert old_fd is not None
        assert guest._config is not None
        size = guest._config.ram_size
        where = guest.options.memory_path
        copied = options.route != SHARED
        if copied:
            memory.check_free(size, None if where is None else Path(where))
            memory.check_sent(old_fd, size, size, None if where is None else Path(where))
        directory = RunDirectory.create(name, source.name)
        new_fd = old_fd
        destination = None
        try:
            if copied:
                new_fd = memory.create(size, None if where is None else Path(where))
            config = self._furnish(source, directory)
            # QEMU may have been replaced by a newer one since the guest was started.
            plan = machine_type.pinned(source.plan, await machine_type.running(source))
            plan = replace(plan, devices=plan.devices.arriving())
            destination = Supervisor(plan, directory, new_fd, guest.console_text, incoming=True)
            window = layout.window_base(RAM_BASE, size)
            handover = Handover(
                source,
                destination,
                options,
                report,
                start_timeout=guest.options.start_timeout,
                ram_fds=(old_fd, new_fd),
                ram_range=range(RAM_BASE, RAM_BASE + size),
                window=range(window, layout.frame_end(window, guest._config.nr_cpus)),
                early=early,
            )
            result = await handover.run()
        except BaseException as error:
            if isinstance(error, LostInPostcopyError):
                await finish(self._lose(source))
            if destination is not None:
                await finish(destination.stop())
            directory.remove()
            if new_fd != old_fd:
                os.close(new_fd)
            if isinstance(error, SdeiError) and not isinstance(error, UsageError | NotDeliveredError):
                said = destination.complaint if destination is not None else ""
                if said and said not in str(error) and not isinstance(error, LaunchError):
                    error = type(error)(f"{error}; the destination's QEMU: {said}")
                raise self._explain(source, error) from None
            raise
        self._settle(directory, destination, config, new_fd)
        await finish(self._leave(source, destination, None if new_fd == old_fd else old_fd))
        return result

    async def _leave(self, source: Supervisor, destination: Supervisor, ram_fd: int | None) -> None:
        """The guest runs at the destination: end the source, and its RAM `ram_fd` if that is another."""
        with contextlib.suppress(OSError):
            await self.open(destination.directory)
        await source.stop()
        source.directory.remove()
        if ram_fd is not None:
            os.close(ram_fd)
        destination.plan = source.plan
        await self._forward(destination)

    @staticmethod
    async def _forward(supervisor: Supervisor) -> None:
        """Take the guest's forwarded ports, which the source's QEMU had until it ended."""
        for rule in supervisor.plan.devices.forwards:
            # QMP has no command for it; HMP says nothing when it has worked.
            said = await supervisor.execute("human-monitor-command", {"command-line": f"hostfwd_add net0 {rule}"})
            if said:
                raise GuestError(f"the guest is {supervisor.name!r} now, but its port is lost ({rule}): {said}".strip())

    def _furnish(self, source: Supervisor, directory: RunDirectory) -> GuestConfig:
        """Write into the new run directory what QEMU and the backend need, from the source's own configuration."""
        config = self._guest._config
        assert config is not None
        try:
            for name in _COPIED:
                if (source.path / name).is_file():
                    shutil.copyfile(source.path / name, directory / name)
            files.identify(directory.path, files.identity(source.path))
            boot = dict(config.boot)
            if boot.get("initrd") == str(source.path / files.INITRD):
                boot["initrd"] = str(directory / files.INITRD)
            config = replace(config, name=directory.name, boot=boot)
            (directory / files.CONFIG).write_text(config.to_json())
        except OSError as error:
            raise UsageError(
                f"{directory.path} cannot be written: {error.strerror}; make room there, or set XDG_RUNTIME_DIR"
            ) from None
        return config

    def _settle(self, directory: RunDirectory, supervisor: Supervisor, config: GuestConfig, ram_fd: int) -> None:
        """The guest is there now."""
        guest = self._guest
        with guest.console_text.changed:
            guest._directory = directory
            guest._config = config
            guest._ram_fd = ram_fd
            guest._client = ControlClient(directory / files.CONTROL, identity=files.identity(directory.path))
            guest._supervisor = supervisor
            guest.console_text.changed.notify_all()

    @staticmethod
    async def _lose(source: Supervisor) -> None:
        """The guest is neither here nor there: let its end be the end of `source`."""
        source.carries = True
        with contextlib.suppress(SdeiError):
            await source.execute("quit", {})

    @staticmethod
    def _explain(source: Supervisor, error: SdeiError) -> SdeiError:
        if isinstance(error, LostInPostcopyError):
            return error
        if isinstance(error, StandsStillError):
            return type(error)(f"the guest was not migrated: {error}")
        if source.power_off is not None:
            return LostGuestError(f"the guest has ended ({source.power_off.reason}) while it was migrated: {error}")
        return GuestError(f"the guest was not migrated and goes on as {source.name!r}: {error}")
