"""Handing a simulated guest from one backend to another, as a migration does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.config import GuestConfig
from qemu_sdei.sdei.events import EventDescription, EventType, Priority
from qemu_sdei.sdei.machine_description import MachineDescription
from tests.backend.simulated import RAM_BASE, RAM_SIZE, SimulatedGuest, SimulatedWindow
from tests.backend.test_crash import World


def machine(nr_cpus: int) -> dict[str, Any]:
    """The simulated machine, as documents name it."""
    config = GuestConfig(name="x", nr_cpus=nr_cpus, cpu="cortex-a72", ram_size=64 << 20)
    return state_document.machine_of(config) | {"ram_size": RAM_SIZE, "window": RAM_BASE + RAM_SIZE - (2 << 20)}


def taken(server: Server) -> dict[str, Any]:
    """The state document, through JSON."""
    server.guest.machine = machine(server.window.nr_cpus) | {"window_version": server.firmware.machine.monitor}
    copy: dict[str, Any] = json.loads(json.dumps(state_document.take(server)))
    return copy


def migrate(world: World, directory: Path) -> None:
    """Another server, other RAM, another journal; the document is all that goes over."""
    state = taken(world.server)
    guest = world.guest
    directory.mkdir(parents=True)
    execute = guest.window.execute
    guest.window = fresh_window(guest.nr_cpus)
    guest.window.execute = execute
    guest.journal_path = directory / "journal"
    world.server = world._start()
    world.server.guest.machine = machine(guest.nr_cpus)
    state_document.restore(world.server, state)


def fresh_window(nr_cpus: int) -> SimulatedWindow:
    """RAM that nobody has written to."""
    fd = os.memfd_create("test-destination")
    os.ftruncate(fd, RAM_SIZE)
    try:
        return SimulatedWindow(fd, RAM_BASE, RAM_SIZE, nr_cpus)
    finally:
        os.close(fd)


def described(state: dict[str, Any]) -> MachineDescription:
    """The machine description that a document is of: the default one changes from version to version."""
    found = state["firmware"]["sdei"]["profile"]
    return MachineDescription(
        tuple(
            EventDescription(number, f"event-{number}", EventType(kind), Priority(priority), signalable)
            for number, kind, priority, signalable in found["events"]
        ),
        version=tuple(found["version"]),
        vendor=found["vendor"],
        slots=tuple(found["slots"]),
        strict_signal=found["strict_signal"],
    )


def destination(nr_cpus: int, directory: Path) -> Server:
    """A server that a document of `taken` fits, of a world without users' services."""
    server = SimulatedGuest(nr_cpus, directory).server()
    server.guest.machine = machine(nr_cpus)
    return server
