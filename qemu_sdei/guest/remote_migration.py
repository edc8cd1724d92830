"""A guest's departure to another host: what `Guest.migrate_to` and the owner socket's `migrate-to` do."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from qemu_sdei import guest_identity
from qemu_sdei import rundir as files
from qemu_sdei.errors import GuestError, LostGuestError, SdeiError, UsageError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.migration.destination_remote import RemoteDestination, RemoteResult
from qemu_sdei.migration.failure_points import UndecidedError
from qemu_sdei.migration.offer import make_offer
from qemu_sdei.migration.options import COPY, LIVE, MigrationOptions, Report
from qemu_sdei.migration.remote_address import Address
from qemu_sdei.migration.retry import try_again
from qemu_sdei.migration.run_to_completion import finish
from qemu_sdei.migration.sequence import Sequence
from qemu_sdei.migration.source import execute
from qemu_sdei.smccc.selection import REGISTERS
from qemu_sdei.vm import machine_type
from qemu_sdei.vm.place import State
from qemu_sdei.vm.supervisor import Supervisor


class RemoteMigration:
    """Sends one guest away; it comes back only when something failed."""

    def __init__(self, record: GuestRecord) -> None:
        self._record = record
        self._undecided: Sequence[RemoteResult] | None = None

    async def migrate(self, address: Address, options: MigrationOptions, report: Report) -> RemoteResult:
        """Have the guest go on at another host; here it ends.

        Raises:
            UsageError: it cannot be done. `UndecidedError`: see there. `GuestError`: it did not work, and the guest
            goes on; `LostGuestError`: it does not.
        """
        if options.route not in (COPY, LIVE):
            raise UsageError(f"to another host a guest goes by route {LIVE} or {COPY}, not {options.route}")
        record, here = self._record, self._record.here
        source = here.supervisor
        try:
            version = (await execute(source, "query-version"))["qemu"]
            machine = {
                "type": await machine_type.running(source),
                "version": ".".join(str(version[part]) for part in ("major", "minor", "micro")),
            }
            selection = await asyncio.to_thread(_selection, source.path)
            offer = await asyncio.to_thread(
                make_offer, record.options, here.plan, here.config, source.path, record.nonce, machine, selection
            )
            result = await try_again(
                lambda _early: self._depart(
                    Sequence(
                        source,
                        RemoteDestination(
                            source,
                            address,
                            offer,
                            options,
                            report,
                            here.ram.fd,
                            here.ram.size,
                            lambda: source.resets.to_json(),
                            source.take_input,
                            source.told,
                        ),
                        options,
                        report,
                    )
                ),
                options,
                report,
            )
        except UndecidedError:
            raise
        except OSError as error:
            raise GuestError(f"the guest was not migrated and runs on as {source.name!r}: {error.strerror}") from None
        except SdeiError as error:
            if source.power_off is not None:
                raise LostGuestError(f"the guest has ended ({source.power_off.reason}) meanwhile: {error}") from None
            if isinstance(error, UsageError):
                raise
            raise GuestError(f"the guest was not migrated and runs on as {source.name!r}: {error}") from None
        await finish(self._leave(source, f"{address} as {result.destination!r}"))
        return result

    async def _depart(self, sequence: Sequence[RemoteResult]) -> RemoteResult:
        try:
            return await sequence.run()
        except UndecidedError:
            self._undecided = sequence
            raise

    async def resume(self) -> None:
        """After an `UndecidedError`: the guest goes on here. Raises `UsageError`: there was none."""
        sequence, self._undecided = self._undecided, None
        side = self._record.supervisor
        if side.place.state is not State.UNDECIDED:
            raise UsageError("the guest runs on this host already: there is nothing to resume")
        if sequence is not None:
            await sequence.take_back()
            return
        # Its owner at that time was killed.
        await execute(side, "cont")
        side.stays()

    @staticmethod
    async def _leave(source: Supervisor, where: str) -> None:
        source.departed(where)
        with contextlib.suppress(SdeiError):
            await execute(source, "quit")


def _selection(directory: Path) -> dict[str, int]:
    """Which services the guest finds, as its backend says: value of each bitmap register by its word.

    Raises `SdeiError`.
    """
    with ControlClient(directory / files.CONTROL, identity=guest_identity.read(directory)) as client:
        found = client.registers(0)
    return {register.word: found[register.id][0] for register in REGISTERS if register.id in found}


def request(data: dict[str, Any]) -> tuple[Address, MigrationOptions]:
    """What a `migrate-to` request asks for. Raises `UsageError`."""
    return Address.from_json(data.get("to")), MigrationOptions.from_json(data.get("options"))
