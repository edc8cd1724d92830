"""How `GuestRas` reaches a guest: one of this process, or one that another process runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_sdei import rundir
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.config import MAX_CONFIG, GuestConfig
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.guest.console_feed import OwnConsole, RemoteConsole
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.helper import Helper, Runner
from qemu_sdei.guest.ras import GuestRas, RasAccess
from qemu_sdei.guest.shell import CommandResult
from qemu_sdei.untrusted_files import read

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest


def of_guest(guest: Guest, control: Callable[[], ControlClient]) -> GuestRas:
    """That of a guest of this process; `control` gives the client of its backend. Without the helper its shell does."""
    directory = guest.placement.directory
    run: Runner | None = None
    if (directory.path / rundir.HELPER).exists():
        run = _Following(guest).run
    elif guest.placement.plan.own_initramfs and guest.options.command is None:
        run = guest.run

    def console() -> OwnConsole:
        text = guest.console_text
        return OwnConsole(text.since, text.end, lambda: text.closed)

    return GuestRas(RasAccess(directory.name, control, _ram(directory.path), run, console))


class _Following:
    """The helper of a guest that may have migrated meanwhile."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def run(self, command: str, timeout: float = 30.0) -> CommandResult:
        """See `Helper.run`."""
        directory = self._guest.placement.directory
        return Helper(directory.path, directory.name).run(command, timeout)


@contextlib.contextmanager
def of_running(guest: rundir.Running, *, console: bool) -> Iterator[GuestRas]:
    """That of a guest that another process runs; `console`: what it prints is wanted, as far as its owner gives it."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(ControlClient(guest.control, identity=guest.identity))
        client.hello()

        def words() -> RemoteConsole | None:
            if not console:
                return None
            try:
                return stack.enter_context(RemoteConsole(guest.owner, guest.identity))
            except SdeiError:
                return None  # a QEMU of the user's own, or a guest without owner

        run: Runner | None = None
        with contextlib.suppress(UsageError):
            run = Helper(guest.path, guest.name).run
        access = RasAccess(guest.name, lambda: client, _ram(guest.path), run, words)
        yield stack.enter_context(GuestRas(access))


def _ram(directory: Path) -> tuple[int, int]:
    """Where a guest's RAM begins and ends. Raises `UsageError`."""
    config = GuestConfig.from_json(read(directory / rundir.CONFIG, MAX_CONFIG))
    boot = BootConfig.from_json(config.boot)
    return boot.ram_base, boot.ram_base + boot.usable_size
