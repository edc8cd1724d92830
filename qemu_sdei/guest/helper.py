"""Client of the helper in our own initramfs: commands in the guest beside whatever its console is used for.

The helper (`qemu_sdei/data/helper`) sits behind a serial card; QEMU has the other end as a socket of the run directory.
QEMU lets one client in at a time, so each command is a connection of its own, and others wait their turn.
"""

from __future__ import annotations

import base64
import secrets
import socket
import time
from pathlib import Path
from typing import Final, Protocol

from qemu_sdei import rundir, stopped
from qemu_sdei.errors import GuestTimeoutError, LostGuestError, UsageError
from qemu_sdei.guest import shell
from qemu_sdei.guest.shell import CommandResult

MAX_COMMAND: Final = 3000
"""Bytes of a command: a terminal takes a line of 4095, and it goes over as base64."""
MAX_OUTPUT: Final = 4 << 20
"""Characters of what a command may print, as the guest sees to it or not."""
_GRACE: Final = 5.0
"""Seconds beyond a command's own time for its answer to be here."""
_AGAIN: Final = 1.0
"""Seconds without a word after which a command that has not begun is sent once more: the helper was not there yet."""
_SLICE: Final = 0.5


class Runner(Protocol):
    """Runs commands in a guest: `Helper.run`, or `Guest.run`."""

    def __call__(self, command: str, timeout: float = 30.0) -> CommandResult:
        """Run `command` in a shell of the guest. Raises `GuestTimeoutError`, `LostGuestError`."""


class Helper:
    """The helper of one guest."""

    def __init__(self, directory: Path, name: str = "") -> None:
        """`directory` is the guest's run directory. Raises `UsageError`: it has no helper."""
        self._path = directory / rundir.HELPER
        self._name = name or directory.name
        if not self._path.exists():
            raise UsageError(
                f"guest {self._name!r} has no helper in it: start it with --ras, and with our own initramfs "
                "(in Python: GuestOptions(ras=True, helper=True))"
            )

    def run(self, command: str, timeout: float = 30.0) -> CommandResult:
        """Run `command` in a shell of the guest and return its status and output; what it starts in the background goes
        on. A command that takes longer than `timeout` seconds is killed there (status 137).

        Raises:
            UsageError: the command is too long. `GuestTimeoutError`: no answer, such as of a guest that has panicked.
            LostGuestError: the guest has ended.
        """
        text = base64.b64encode(command.encode(errors="surrogateescape"))
        if len(command) > MAX_COMMAND:
            raise UsageError(f"a command for the guest's helper has {MAX_COMMAND} characters at most")
        nonce = secrets.token_hex(8)
        request = b"\n%s %d %s\n" % (nonce.encode(), max(round(timeout), 1), text)
        deadline = time.monotonic() + timeout + _GRACE
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.settimeout(_SLICE)
                connection.connect(str(self._path))
            except OSError:
                raise LostGuestError(f"guest {self._name!r} has ended") from None
            return self._answer(connection, request, nonce, deadline, timeout)

    def _answer(
        self, connection: socket.socket, request: bytes, nonce: str, deadline: float, timeout: float
    ) -> CommandResult:
        begun = shell.marker(nonce, "begin").encode()
        said = b""
        sent = 0.0
        while (result := shell.parse_reply(said.decode(errors="replace"), nonce)) is None:
            now = time.monotonic()
            if now >= deadline:
                raise GuestTimeoutError(
                    f"the helper in guest {self._name!r} did not answer within {timeout:g} s"
                    f"{stopped.reason(self._path.parent)}"
                )
            if len(said) > MAX_OUTPUT:
                raise GuestTimeoutError(f"a command of the helper in guest {self._name!r} does not stop printing")
            try:
                if begun not in said and now - sent >= _AGAIN:
                    connection.sendall(request)
                    sent = now
                if not (data := connection.recv(1 << 16)):
                    raise ConnectionResetError
            except TimeoutError:
                continue
            except OSError:
                raise LostGuestError(f"guest {self._name!r} ended while its helper was asked") from None
            said += data
        return result
