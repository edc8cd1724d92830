"""Where a guest is now: run directory, configuration, RAM, processes, and how to reach them.

Starting a guest gives a `Placement`, a migration on this host the next one; `Guest` holds one. It is never changed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from qemu_sdei import guest_identity
from qemu_sdei import rundir as files
from qemu_sdei.config import RAM_BASE, GuestConfig
from qemu_sdei.errors import UsageError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.host import memory
from qemu_sdei.monitor import layout
from qemu_sdei.rundir import RunDirectory
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.devices import Devices
from qemu_sdei.vm.plan import Plan
from qemu_sdei.vm.supervisor import Supervisor


class Ram:
    """A guest's RAM: a descriptor that this process owns until `close`."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        """Bytes."""
        self._open = True

    @classmethod
    def create(cls, size: int, directory: str | Path | None) -> Ram:
        """New RAM of `size` bytes: a memfd, or an unnamed file in `directory`. Raises `UsageError`."""
        return cls(memory.create(size, None if directory is None else Path(directory)), size)

    def close(self) -> None:
        """Give it back; does nothing the second time."""
        if self._open:
            self._open = False
            os.close(self.fd)

    @property
    def addresses(self) -> range:
        """Its physical addresses in the guest."""
        return range(RAM_BASE, RAM_BASE + self.size)


def window(ram_size: int, nr_cpus: int) -> range:
    """The physical addresses of the frame window, which the backend shares with the EL3 monitor."""
    base = layout.window_base(RAM_BASE, ram_size)
    return range(base, layout.frame_end(base, nr_cpus))


@dataclass(frozen=True)
class Placement:
    """Where a guest is."""

    directory: RunDirectory
    config: GuestConfig
    plan: Plan
    ram: Ram
    supervisor: Supervisor
    client: ControlClient
    """The guest's own connection to the backend's control socket."""

    @property
    def window(self) -> range:
        """The physical addresses of the frame window."""
        return window(self.ram.size, self.config.nr_cpus)


class PlacementBuilder:
    """A placement in the making. Each part belongs to it until `done`; `stop` and `discard` give all of them back."""

    def __init__(self) -> None:
        self.directory: RunDirectory | None = None
        self.ram: Ram | None = None
        self.supervisor: Supervisor | None = None
        self._devices: Devices | None = None
        self._config: GuestConfig | None = None

    def write(self, name: str, data: bytes) -> Path:
        """Write a file into the run directory. Raises `UsageError`."""
        assert self.directory is not None
        path = self.directory / name
        try:
            path.write_bytes(data)
        except OSError as error:
            raise unwritable(path, error) from None
        return path

    def configure(self, config: GuestConfig) -> None:
        """Write down what the backend must know. Raises `UsageError`."""
        self.know(config)
        self.write(files.CONFIG, config.to_json().encode())

    def know(self, config: GuestConfig) -> None:
        """That is what is written there."""
        self._config = config

    def make(self, plan: Plan) -> None:
        """Make the files of its devices. Raises `UsageError`."""
        plan.devices.create(plan.ram_size)
        self._devices = plan.devices

    def supervise(self, plan: Plan, console: Console, nonce: str = "", *, arriving: bool = False) -> Supervisor:
        """Make the supervisor of what there is; it starts nothing yet."""
        assert self.directory is not None
        assert self.ram is not None
        self.supervisor = Supervisor(plan, self.directory, self.ram.fd, console, incoming=arriving, nonce=nonce)
        return self.supervisor

    def done(self, plan: Plan | None = None) -> Placement:
        """The placement; its parts are no longer the builder's. `plan`: another one than its supervisor has now."""
        directory, ram, supervisor, config = self.directory, self.ram, self.supervisor, self._config
        assert directory is not None
        assert ram is not None
        assert supervisor is not None
        assert config is not None
        client = ControlClient(directory / files.CONTROL, identity=guest_identity.read(directory.path))
        placement = Placement(directory, config, plan or supervisor.plan, ram, supervisor, client)
        self.directory = self.ram = self.supervisor = self._devices = None
        return placement

    @property
    def warnings(self) -> list[str]:
        """What went wrong without harm."""
        return [] if self.supervisor is None else list(self.supervisor.warnings)

    async def stop(self) -> None:
        """End the processes."""
        if self.supervisor is not None:
            await self.supervisor.stop()

    def discard(self, *, keep_ram: bool = False) -> None:
        """Give back RAM (unless it is somebody else's) and run directory; the second time it does nothing."""
        if self.ram is not None and not keep_ram:
            self.ram.close()
        if self._devices is not None:
            self._devices.discard()
            self._devices = None
        if self.directory is not None:
            self.directory.remove()


def unwritable(path: Path, error: OSError) -> UsageError:
    """The error for a run directory without room."""
    return UsageError(f"{path} cannot be written: {error.strerror}; make room there, or set XDG_RUNTIME_DIR")
