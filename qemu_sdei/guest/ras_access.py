"""How `GuestRas` reaches a guest: what it asks of whom; a guest of this process, or one that another process runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qemu_sdei import rundir
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.config import MAX_CONFIG, GuestConfig
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.guest.console_feed import OwnConsole, PrintedWords, RemoteConsole
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.helper import Helper, Runner
from qemu_sdei.guest.shell import CommandResult
from qemu_sdei.untrusted_files import read

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest


class RasControl(Protocol):
    """What is asked of a backend: `ControlClient`."""

    def ras_sources(self) -> list[dict[str, Any]]:
        """The error sources and their state."""

    def ras_report(
        self,
        source: str,
        block: bytes,
        *,
        vcpu: int | None = None,
        address: int | None = None,
        wait: bool = False,
        force: bool = False,
        raw: bool = False,
        timeout: float = 5.0,
    ) -> dict[str, Any]:
        """Write a status block and notify the guest."""

    def ras_keep(self, block: bytes) -> dict[str, Any]:
        """Keep a status block for the BERT of the next boot."""

    def memory_error(self, address: int, *, source: str | None = None, vcpu: int | None = None) -> dict[str, Any]:
        """Tell of a page that is bad at the host."""

    def abort(
        self,
        vcpu: int | None = None,
        *,
        address: int | None = None,
        fetch: bool = False,
        kernel: bool = False,
        limit: int = 10,
    ) -> dict[str, Any]:
        """Have a vCPU take a synchronous external abort."""


@dataclass(frozen=True, slots=True)
class RasAccess:
    """How one guest is reached."""

    name: str
    control: Callable[[], RasControl]
    ram: tuple[int, int]
    """Where its RAM begins and ends, physical addresses."""
    run: Runner | None = None
    """Commands in it; None: none can be run."""
    console: Callable[[], PrintedWords | None] = lambda: None
    """What it prints from now on."""


def of_guest(guest: Guest, control: Callable[[], ControlClient]) -> RasAccess:
    """A guest of this process; `control` gives the client of its backend. Without the helper its shell does."""
    directory = guest.placement.directory
    run: Runner | None = None
    if (directory.path / rundir.HELPER).exists():
        run = _Following(guest).run
    elif guest.placement.plan.own_initramfs and guest.options.command is None:
        run = guest.run

    def console() -> OwnConsole:
        text = guest.console_text
        return OwnConsole(text.since, text.end, lambda: text.closed)

    return RasAccess(directory.name, control, _ram(directory.path), run, console)


class _Following:
    """The helper of a guest that may have migrated meanwhile."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def run(self, command: str, timeout: float = 30.0) -> CommandResult:
        """See `Helper.run`."""
        directory = self._guest.placement.directory
        return Helper(directory.path, directory.name).run(command, timeout)


@contextlib.contextmanager
def of_running(guest: rundir.Running, *, console: bool) -> Iterator[RasAccess]:
    """A guest that another process runs; `console`: what it prints is wanted, as far as its owner gives it."""
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
        yield RasAccess(guest.name, lambda: client, _ram(guest.path), run, words)


def _ram(directory: Path) -> tuple[int, int]:
    """Where a guest's RAM begins and ends. Raises `UsageError`."""
    config = GuestConfig.from_json(read(directory / rundir.CONFIG, MAX_CONFIG))
    boot = BootConfig.from_json(config.boot)
    return boot.ram_base, boot.ram_base + boot.usable_size
