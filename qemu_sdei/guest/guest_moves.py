"""`Guest` that moves: to another QEMU on this host, or to another host. (One that arrives: `receive.py`.)"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, Protocol

from qemu_sdei.migration.destination_remote import RemoteResult
from qemu_sdei.migration.options import LIVE, SHARED, UNIX, Hold, MigrationOptions, MigrationResult, Report, no_report
from qemu_sdei.migration.remote_address import Address, Tls, parse
from qemu_sdei.migration.remote_ssh import REMOTE_COMMAND, SCHEME, Tunnel
from qemu_sdei.migration.retry import longest
from qemu_sdei.vm import silence
from qemu_sdei.vm.event_loop import EventLoop
from qemu_sdei.vm.options import GuestOptions

_TIMEOUT: Final = 120.0
_RESUME: Final = 60.0
_EXTRA: Final = 60.0
_REMOTE_EXTRA: Final = 600.0
"""Seconds, beside the waits that have limits of their own; to another host files and hashes of RAM travel too."""


class Moves(Protocol):
    """What moves a guest."""

    async def migrate(self, name: str | None, options: MigrationOptions, report: Report) -> MigrationResult:
        """See `LocalMigration.migrate`."""

    async def migrate_to(self, address: Address, options: MigrationOptions, report: Report) -> RemoteResult:
        """See `RemoteMigration.migrate`."""

    async def resume(self) -> None:
        """See `RemoteMigration.resume`."""


class GuestMoves(ABC):
    """The part of `Guest` that moves it."""

    loop: EventLoop

    @property
    @abstractmethod
    def name(self) -> str:
        """The guest's name."""

    @property
    @abstractmethod
    def options(self) -> GuestOptions:
        """What it was asked to be."""

    @abstractmethod
    def _moves(self) -> Moves:
        """What moves it. Raises `SdeiError`: it is not started."""

    def migrate(
        self,
        name: str | None = None,
        *,
        route: str = SHARED,
        verify: bool = True,
        hold: Hold | None = None,
        timeout: float = _TIMEOUT,
        transport: str = UNIX,
        multifd: int = 0,
        report: Report = no_report,
    ) -> MigrationResult:
        """Move the running guest to a new QEMU and a new backend on this host. Afterwards this object is the guest
        there.

        Args:
            name: name of the guest there; None: the first free of its own name without the number, NAME-2, NAME-3, ...
            route: how RAM gets there. "shared": both QEMUs map the same RAM. "copy": RAM is sent while the vCPUs are
                paused. "live": RAM is sent while the vCPUs run. "postcopy": the rest of RAM is sent after the vCPUs run
                at the destination.
            verify: True: compare RAM that was copied, and repair it, before the guest runs on.
            hold: migrate when an event is in this state; None: now.
            timeout: seconds that QEMU may take for the transfer.
            transport: connection between the two QEMUs: "unix", or "tcp" on loopback.
            multifd: number of parallel connections for RAM; 0: RAM uses the main connection.
            report: called with the progress, in another thread.

        Raises:
            UsageError: this guest cannot be migrated so; the message says why.
            GuestError: the migration failed, and the guest runs on at the source.
            LostGuestError: the migration failed, and the guest is lost.
        """
        options = MigrationOptions(route, verify, hold, timeout, transport, multifd)
        starting = silence.longest(self.options.start_timeout)
        once = timeout + starting + _EXTRA + (hold.timeout if hold is not None else 0)
        return self.loop.call(self._moves().migrate(name, options, report), longest(options, once))

    def migrate_to(
        self,
        to: str,
        *,
        token: str = "",
        tls: Tls | None = None,
        route: str = LIVE,
        multifd: int = 0,
        verify: bool = True,
        hold: Hold | None = None,
        timeout: float = _TIMEOUT,
        report: Report = no_report,
        remote_command: str = REMOTE_COMMAND,
    ) -> RemoteResult:
        """Move the running guest to another host. Here it ends; the process that receives it is its supervisor process.

        Args:
            to: "ssh://[USER@]HOST[:PORT][/NAME]", "tls://HOST:PORT", "tcp://127.0.0.1:PORT" or "unix:PATH".
            token: for tcp: the token that the receiver printed.
            tls: for tls: certificate, key and CA.
            route: "live": RAM is sent while the vCPUs run, and pages that they write are sent again. "copy": RAM is
                sent while the vCPUs are paused.
            multifd: number of parallel connections for RAM; 0: RAM uses the main connection.
            verify: True: compare RAM by hashes, and repair it, before the guest runs on there.
            hold: migrate when an event is in this state; None: now.
            timeout: seconds that QEMU may take for the transfer.
            report: called with the progress, in another thread.
            remote_command: for ssh: the `qemu-sdei` command on that host.

        Raises:
            UsageError: this guest cannot be sent so; the message says why.
            UndecidedError: it is not known whether the guest runs there. Here it is paused, until `resume`.
            GuestError: the migration failed, and the guest runs on here.
            LostGuestError: the migration failed, and the guest is lost.
        """
        moves = self._moves()
        options = MigrationOptions(route, verify, hold, timeout, multifd=multifd)
        starting = silence.longest(self.options.start_timeout)
        once = timeout + starting + _REMOTE_EXTRA + (hold.timeout if hold is not None else 0)
        wait = longest(options, once)
        if to.startswith(SCHEME):
            with Tunnel(to, self.name, remote_command=remote_command) as address:
                return self.loop.call(moves.migrate_to(address, options, report), wait)
        address = parse(to, token=token, tls=tls)
        return self.loop.call(moves.migrate_to(address, options, report), wait)

    def resume(self) -> None:
        """Let the guest run on here after an `UndecidedError`. Call it only if you know that the guest does not run at
        the other host: else it runs twice.

        Raises:
            GuestError: QEMU refused; the message has its words.
            LostGuestError: QEMU has ended.
        """
        self.loop.call(self._moves().resume(), _RESUME)
