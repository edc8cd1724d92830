"""`Guest` between hosts: to wait for one that arrives, and to send one away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from qemu_sdei.migration.options import LIVE, Hold, MigrationOptions, Report, no_report
from qemu_sdei.migration.remote_address import Tls, parse
from qemu_sdei.migration.remote_source import RemoteResult
from qemu_sdei.migration.remote_ssh import REMOTE_COMMAND, SCHEME, Tunnel
from qemu_sdei.migration.retry import longest
from qemu_sdei.vm import silence

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.guest.receive import ReceivedGuest

_TIMEOUT = 120.0
_RESUME = 60.0
_EXTRA = 600.0
"""Seconds, beside the waits that have limits of their own: files and hashes of RAM travel too."""


class RemoteGuest:
    """The part of `Guest` that is about other hosts."""

    @staticmethod
    def receive(**arguments: Any) -> ReceivedGuest:
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
        from qemu_sdei.guest.receive import receive

        return receive(**arguments)

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
        """Send the running guest to another host. It ends here, and belongs to whoever received it.

        Args:
            to: "ssh://[USER@]HOST[:PORT][/NAME]", "tls://HOST:PORT", "tcp://127.0.0.1:PORT" or "unix:PATH".
            token: for tcp: what the receiver printed.
            tls: for tls: certificate, key and CA.
            route: "live": RAM is sent while the guest runs, and what it wrote meanwhile once more; "copy": it stands
                still.
            multifd: connections that RAM is sent by in parallel; 0: by the one that all else goes by.
            verify: compare RAM by hashes before it goes on there, and repair it.
            hold: migrate when an event is in a given state.
            timeout: seconds that QEMU may take for the transfer.
            report: is told of progress, in another thread.
            remote_command: for ssh: what `qemu-sdei` is called there.

        Raises:
            UsageError: it cannot be done. `UndecidedError`: it may run there or not, and stands still here; `resume`
            has it go on. `GuestError`: it did not work, and the guest goes on; `LostGuestError`: it does not.
        """
        guest = cast("Guest", self)
        guest._running()
        assert guest._mover is not None
        options = MigrationOptions(route, verify, hold, timeout, multifd=multifd)
        once = (
            timeout + silence.longest(guest.options.start_timeout) + _EXTRA + (hold.timeout if hold is not None else 0)
        )
        wait = longest(options, once)
        if to.startswith(SCHEME):
            with Tunnel(to, guest.name, remote_command=remote_command) as address:
                return guest._call(guest._mover.migrate_to(address, options, report), wait)
        address = parse(to, token=token, tls=tls)
        return guest._call(guest._mover.migrate_to(address, options, report), wait)

    def resume(self) -> None:
        """After an `UndecidedError`: the guest goes on here. Only for who knows that it does not run there."""
        guest = cast("Guest", self)
        guest._running()
        assert guest._mover is not None
        guest._call(guest._mover.resume(), _RESUME)
