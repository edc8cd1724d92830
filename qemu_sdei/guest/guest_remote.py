"""`Guest` between hosts: to send one away. (One that arrives: `receive.py`.)"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from qemu_sdei.migration.destination_remote import RemoteResult
from qemu_sdei.migration.options import LIVE, Hold, MigrationOptions, Report, no_report
from qemu_sdei.migration.remote_address import Address, Tls, parse
from qemu_sdei.migration.remote_ssh import REMOTE_COMMAND, SCHEME, Tunnel
from qemu_sdei.migration.retry import longest
from qemu_sdei.vm import silence
from qemu_sdei.vm.event_loop import EventLoop
from qemu_sdei.vm.options import GuestOptions

_TIMEOUT = 120.0
_RESUME = 60.0
_EXTRA = 600.0
"""Seconds, beside the waits that have limits of their own: files and hashes of RAM travel too."""


class Departs(Protocol):
    """What sends a guest away."""

    async def migrate_to(self, address: Address, options: MigrationOptions, report: Report) -> RemoteResult:
        """See `RemoteMigration.migrate`."""

    async def resume(self) -> None:
        """See `RemoteMigration.resume`."""


class RemoteGuest(ABC):
    """The part of `Guest` that sends it to another host."""

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
    def _moves(self) -> Departs:
        """What sends it away. Raises `SdeiError`: it is not started."""

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
        departs = self._moves()
        options = MigrationOptions(route, verify, hold, timeout, multifd=multifd)
        starting = silence.longest(self.options.start_timeout)
        once = timeout + starting + _EXTRA + (hold.timeout if hold is not None else 0)
        wait = longest(options, once)
        if to.startswith(SCHEME):
            with Tunnel(to, self.name, remote_command=remote_command) as address:
                return self.loop.call(departs.migrate_to(address, options, report), wait)
        address = parse(to, token=token, tls=tls)
        return self.loop.call(departs.migrate_to(address, options, report), wait)

    def resume(self) -> None:
        """Let the guest run on here after an `UndecidedError`. Call it only if you know that the guest does not run at
        the other host: else it runs twice.

        Raises:
            GuestError: QEMU refused; the message has its words.
            LostGuestError: QEMU has ended.
        """
        self.loop.call(self._moves().resume(), _RESUME)
