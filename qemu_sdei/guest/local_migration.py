"""A guest's migration to another QEMU and backend of the same owner: what `Guest.migrate` and the owner socket do.

Owner and console stay: the terminal, the `with` block or the script that the guest was started by goes on with the
guest where it is now. Everything here runs in the guest's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from qemu_sdei import guest_identity
from qemu_sdei import rundir as files
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
from qemu_sdei.guest.console_feed import ConsoleFeed
from qemu_sdei.guest.guest_snapshots import Snapshooter
from qemu_sdei.guest.guest_state import StateTold
from qemu_sdei.guest.machine_control import MachineControl
from qemu_sdei.guest.placement import Placement, PlacementBuilder, Ram, unwritable
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.remote_migration import RemoteMigration
from qemu_sdei.guest.supervisor_socket import Progress, SupervisorSocket
from qemu_sdei.host import memory
from qemu_sdei.migration.destination_local import LocalDestination
from qemu_sdei.migration.destination_remote import RemoteResult
from qemu_sdei.migration.failure_points import LostInPostcopyError
from qemu_sdei.migration.options import SHARED, MigrationOptions, MigrationResult, Report
from qemu_sdei.migration.remote_address import Address
from qemu_sdei.migration.retry import try_again
from qemu_sdei.migration.run_to_completion import finish
from qemu_sdei.migration.sequence import Sequence
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.saving.saved import SaveOptions, described, save
from qemu_sdei.vm import machine_type
from qemu_sdei.vm.place import State
from qemu_sdei.vm.supervisor import Supervisor

_FINISH: Final = 3.0
"""Seconds for a migration that was cancelled to end by itself."""
_COPIED: Final = (files.MONITOR, files.INITRD)
"""What a reset of the guest needs at the destination as well."""


class LocalMigration:
    """Migrates one guest, one migration at a time; what has the guest paused at all goes through here."""

    def __init__(self, record: GuestRecord) -> None:
        self._record = record
        self._task: asyncio.Task[Any] | None = None
        self.snapshooter = Snapshooter(record, self)
        self._remote = RemoteMigration(record)
        self._owner = SupervisorSocket(
            {
                "migrate": self._requested,
                "migrate-to": self._requested_away,
                "resume": self._resume_requested,
                "save": self._save_requested,
                "snapshot": self.snapshooter.requested,
                **MachineControl(record, self).commands,
                **ConsoleFeed(record).commands,
                **record.end.commands,
                **StateTold(record, lambda: self._task is not None).commands,
            }
        )

    async def open(self, directory: RunDirectory) -> None:
        """Take requests of other processes, at the run directory's owner socket."""
        await self._owner.open(directory / files.OWNER)

    async def close(self) -> None:
        """End a migration that is under way, and take no requests any more."""
        await self.cancel()
        await self._record.end.tell()
        await self._owner.close()

    async def leave(self) -> None:
        """As `close`, for a guest that goes on without this process: those who wait for its end are told nothing."""
        await self.cancel()
        await self._owner.close()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing else that has the guest paused goes on at the same time. Raises `UsageError`: it does, or the guest
        may run at another host.
        """
        if self._task is not None:
            raise UsageError("the guest is being migrated, or saved, already")
        if self._record.supervisor.place.state is State.UNDECIDED:
            raise UsageError("the guest is paused, because it may run elsewhere: see `qemu-sdei migrate --resume`")
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
        """See `RemoteMigration.resume`."""
        await self._remote.resume()

    async def migrate_to(self, address: Address, options: MigrationOptions, report: Report) -> RemoteResult:
        """See `RemoteMigration.migrate`."""
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
                self._record.supervisor.signal_qemu(signal.SIGKILL)
        with contextlib.suppress(BaseException):
            await task

    async def _save_requested(self, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
        path, end = request.get("path"), request.get("end", False)
        if not isinstance(path, str) or not path.startswith("/") or not isinstance(end, bool):
            raise UsageError("save wants the absolute path of a directory")
        # Its form is that of a migration's.
        hold = MigrationOptions.from_json({"hold": request.get("hold")}).hold
        size = await self.save(path, lambda step: progress(step.to_json()), SaveOptions(end, hold))
        return {"path": path, "bytes": size}

    async def save(self, path: str, report: Report, options: SaveOptions) -> int:
        """See `saved.save`."""
        record = self._record
        with self.alone():
            here = record.here
            where = record.options.memory_path
            if where is not None and not options.ram_apart:
                memory.check_sent(here.ram.fd, here.ram.size, 0, Path(where))
            ram = (here.ram.fd, here.ram.size) if options.ram_apart else None
            meta = {"options": described(record.options, here.plan.reboot), "nonce": record.nonce}
            return await save(here.supervisor, path, meta, report, options, ram)

    async def migrate(self, name: str | None, options: MigrationOptions, report: Report) -> MigrationResult:
        """Migrate to a new run directory `name` (None: the first free name).

        Raises:
            UsageError: it cannot be done. `GuestError`: it did not work, and the guest goes on where it was;
            `LostGuestError`: it does not.
        """
        with self.alone():
            source = self._record.supervisor
            try:
                return await try_again(lambda early: self._migrate(name, options, report, early), options, report)
            except NotDeliveredError as error:
                raise self._explain(source, error) from None

    async def _migrate(
        self, name: str | None, options: MigrationOptions, report: Report, early: bool
    ) -> MigrationResult:
        record, here = self._record, self._record.here
        source = here.supervisor
        directory = None if record.options.memory_path is None else Path(record.options.memory_path)
        copied = options.route != SHARED
        if copied:
            memory.check_free(here.ram.size, directory)
            memory.check_sent(here.ram.fd, here.ram.size, here.ram.size, directory)
        there = PlacementBuilder()
        there.directory = RunDirectory.create(name, source.name)
        try:
            there.ram = Ram.create(here.ram.size, directory) if copied else here.ram
            self._furnish(here, there, there.directory)
            # QEMU may have been replaced by a newer one since the guest was started.
            plan = machine_type.pinned(here.plan, await machine_type.running(source))
            plan = replace(plan, devices=plan.devices.arriving())
            destination = there.supervise(plan, record.console, arriving=True)
            target = LocalDestination(
                source,
                destination,
                options,
                report,
                start_timeout=record.options.start_timeout,
                ram_fds=(here.ram.fd, there.ram.fd),
                ram_range=here.ram.addresses,
                window=here.window,
            )
            result = await Sequence(source, target, options, report, early=early).run()
        except BaseException as error:
            if isinstance(error, LostInPostcopyError):
                await finish(self._lose(source))
            await finish(there.stop())
            said = "" if there.supervisor is None else there.supervisor.complaint
            there.discard(keep_ram=not copied)
            if isinstance(error, SdeiError) and not isinstance(error, UsageError | NotDeliveredError):
                if said and said not in str(error) and not isinstance(error, LaunchError):
                    error = type(error)(f"{error}; the destination's QEMU: {said}")
                raise self._explain(source, error) from None
            raise
        destination.goes_on()
        record.settle(there.done(here.plan))
        await finish(self._leave(here, destination, copied=copied))
        return result

    async def _leave(self, source: Placement, destination: Supervisor, *, copied: bool) -> None:
        """The guest runs at the destination: end the source, and its RAM if that is `copied`."""
        with contextlib.suppress(OSError):
            await self.open(destination.directory)
        await source.supervisor.stop()
        source.directory.remove()
        if copied:
            source.ram.close()
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

    @staticmethod
    def _furnish(here: Placement, there: PlacementBuilder, directory: RunDirectory) -> None:
        """Write into the new run directory what QEMU and the backend need, from the source's own configuration."""
        try:
            for name in _COPIED:
                if (here.directory / name).is_file():
                    shutil.copyfile(here.directory / name, directory / name)
            guest_identity.write(directory.path, guest_identity.read(here.directory.path))
        except OSError as error:
            raise unwritable(directory.path, error) from None
        boot = dict(here.config.boot)
        if boot.get("initrd") == str(here.directory / files.INITRD):
            boot["initrd"] = str(directory / files.INITRD)
        there.configure(replace(here.config, name=directory.name, boot=boot))

    @staticmethod
    async def _lose(source: Supervisor) -> None:
        """The guest is neither here nor there: let its end be the end of `source`."""
        source.take_back()
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
        return GuestError(f"the guest was not migrated and runs on as {source.name!r}: {error}")
