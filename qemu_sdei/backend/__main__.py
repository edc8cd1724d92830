"""`python -m qemu_sdei.backend RUNDIR [--ram-fd N] [--lifeline] [--incoming]`: the process that serves one guest.

Started by the machine side for its own guests, and by `qemu-sdei backend` for a QEMU that somebody else runs. With
`--lifeline` the end of standard input means that the owner is gone (see `lifeline.py`). With `--incoming` it waits for
a guest that arrives by migration.

Imports are few on purpose: a guest waits for this process from its first instruction on.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qemu_sdei import __version__, boundedlog, guest_identity, idle_states, locks, rundir
from qemu_sdei.backend.control.control_socket import Control
from qemu_sdei.backend.control.state_document import form, machine_of
from qemu_sdei.backend.firmware.core import RefusedSmc
from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.firmware.machine_boot import Boot
from qemu_sdei.backend.loop import memory_limit
from qemu_sdei.backend.loop.event_log import complain
from qemu_sdei.backend.loop.hypervisor_frames import HypervisorFrames
from qemu_sdei.backend.loop.journal import Journal
from qemu_sdei.backend.loop.lifeline import Lifeline, abandoned
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.backend.loop.vcpu_threads import VcpuThreads
from qemu_sdei.backend.reset.choice import loader_for
from qemu_sdei.backend.reset.el2_loader import El2Loader
from qemu_sdei.boot.area import AcpiArea, Announced
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.boot.previous_errors import Stage
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import GuestTimeoutError, ProtocolError, SdeiError, UsageError
from qemu_sdei.hypervisor.el2 import El2
from qemu_sdei.hypervisor.stage2 import Flash
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.doorbell import Doorbell
from qemu_sdei.monitor.image import proof_of, version_of
from qemu_sdei.monitor.window import Window
from qemu_sdei.printable import printable
from qemu_sdei.profiles.firmware_profile import FirmwareProfile
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.sdei.switches import description_of
from qemu_sdei.smccc.userfile import load_services
from qemu_sdei.trace.meta import TraceMeta
from qemu_sdei.trace.ring import Ring
from qemu_sdei.trace.trace_file import Recorder

if TYPE_CHECKING:
    from qemu_sdei.backend.loop.memory_signals import MemorySignals

_DOORBELL_TIMEOUT = 30.0
_MAX_MONITOR = 1 << 20
_LOCK_TIMEOUT = 5.0
"""Seconds that the backend before this one may take to end."""


def main(argv: list[str] | None = None) -> int:
    """Serve until QEMU goes away. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m qemu_sdei.backend", description=__doc__)
    parser.add_argument("rundir", type=Path)
    parser.add_argument("--ram-fd", type=int)
    parser.add_argument("--lifeline", action="store_true")
    parser.add_argument("--incoming", action="store_true")
    parser.add_argument("--die-with-owner", action="store_true")
    parser.add_argument("--qemu-output", type=int)
    parser.add_argument("--identity", default="")
    parser.add_argument("--doorbell-timeout", type=float, default=_DOORBELL_TIMEOUT)
    options = parser.parse_args(argv)
    if options.lifeline:  # its output is a log, else its user's
        with contextlib.suppress(OSError):
            sys.stdout, sys.stderr = boundedlog.streams(options.rundir)
    try:
        return serve(options)
    except SdeiError as error:
        print(f"qemu-sdei backend: {printable(error)}", file=sys.stderr, flush=True)
        return error.exit_code
    except MemoryError:
        print(f"qemu-sdei backend: {memory_limit.reached()}", file=sys.stderr, flush=True)
        return memory_limit.EXIT


def serve(options: argparse.Namespace) -> int:
    """Serve the guest of a run directory."""
    directory: Path = options.rundir
    ram_fd: int | None = options.ram_fd
    config = GuestConfig.from_json((directory / rundir.CONFIG).read_bytes())
    services = [service for path in config.services for service in load_services(Path(path))]
    fd = os.open(config.ram_path, os.O_RDWR | os.O_CLOEXEC) if ram_fd is None and config.ram_path else ram_fd
    if fd is None:
        raise SdeiError("no guest RAM: neither --ram-fd nor ram_path in guest.json")
    awake = _keep_awake() if config.low_latency else None
    window = Window(fd, config.ram_base, config.ram_size, config.nr_cpus)
    profile = description_of(config)
    boot = BootConfig.from_json(config.boot) if config.boot else None
    flash = _flash(boot, window)
    usable = range(config.ram_base, window.base if flash is None else flash.address)
    el2 = El2(config.ram_base, window.base, config.stage2, flash) if config.hypervisor else None
    loader = None if boot is None else loader_for(boot, window, Announced.of(profile))
    firmware = Firmware(
        config.nr_cpus,
        client_el=2 if config.virtualization else 1,
        profile=profile,
        sdei=config.sdei,
        services=services,
        boot=loader if loader is None or el2 is None else El2Loader(loader, window, el2),
        ram=usable,
        at_reset=el2.at_reset() if el2 is not None else (),
        smc=RefusedSmc(config.smc) if config.smc != "served" else None,
        stolen_time=window.base + layout.PV_TIME_OFFSET,
        hypervisor=config.hypervisor,
        selection=config.selection,
        smccc_filter=config.smccc_filter,
    )
    if config.firmware:
        firmware.misbehaviour.use(FirmwareProfile.of_document(config.firmware))
    firmware.machine.monitor, firmware.boot.proof = _monitor(directory)
    memory_limit.limit_memory()  # what was read until here are files of the user's, which have limits of their own
    lock = _alone(directory)
    if options.identity and guest_identity.read(directory) != options.identity:
        raise SdeiError(f"another guest has {directory} by now")
    journal = Journal(directory / rundir.JOURNAL)
    doorbell = _connect(directory, options)
    ring = Ring(directory / rundir.TRACE, time.monotonic_ns)
    goes_on = ring.serial > 0
    frames = HypervisorFrames(window, serves_smc=config.smc == "served") if config.hypervisor else None
    server = Server(window, doorbell, firmware, journal, ring, hypervisor=frames)
    server.stolen.threads = VcpuThreads(lambda: _qemu(directory, doorbell), config.nr_cpus)
    if boot is not None and boot.uefi is not None:
        _emulate(server, boot, loader)
    _place_errors(server, config, profile, goes_on=goes_on)
    server.guest.machine = machine_of(config) | {"window_version": firmware.machine.monitor}
    lifeline = None
    signals = _memory_signals(server) if server.errors.placed else None
    if options.lifeline:
        lifeline = Lifeline(
            server.descriptors,
            server.hooks,
            directory,
            die_with_owner=options.die_with_owner,
            qemu_output=options.qemu_output,
        )
    meta = _meta(config, firmware, ring)
    ring.describe(meta)
    if config.trace:
        anew = not goes_on and not options.incoming
        server.recorder = Recorder(ring, Path(config.trace), meta, lambda: server.paused, anew=anew)
        server.record_each(True)
    recovered = server.recover()
    if recovered or goes_on or not options.incoming:  # of one that arrives it is told when it is here
        server.log.begun("took-over" if recovered or goes_on else "started")
    if recovered or not options.incoming:
        window.announce(firmware.machine.monitor)  # also to a guest that has run: it may have written over the header
    else:
        server.await_guest()
        form()
    about = {"name": config.name, "nr_cpus": config.nr_cpus, "identity": guest_identity.read(directory)}
    control = Control(server, directory / rundir.CONTROL, about)
    try:
        server.run()
    finally:
        control.close()
        doorbell.close()
        ring.commit()
        if server.recorder is not None:
            server.recorder.close()
        if signals is not None:
            signals.close()
        if lifeline is not None:
            lifeline.close()
        os.close(lock)
        if awake is not None:
            os.close(awake)
    return 0


def _keep_awake() -> int | None:
    """What holds the host's cores awake. A guest that is taken over goes on without it."""
    try:
        return idle_states.keep_awake()
    except OSError as error:
        complain(f"the host's cores may sleep: {error}")
        return None


def _flash(boot: BootConfig | None, window: Window) -> Flash | None:
    """The firmware that a guest finds at address 0; None: it has none of its own."""
    if boot is None or boot.uefi is None:
        return None
    address = boot.ram_base + boot.ram_size - boot.hidden_size
    return Flash(address, window.base - address)


def _emulate(server: Server, boot: BootConfig, loader: Boot | None) -> None:
    """What is ours of the fw_cfg of a guest that boots by UEFI."""
    # Imported here: most guests have none.
    from qemu_sdei.backend.loop.device_frames import DeviceFrames
    from qemu_sdei.backend.reset.uefi_loader import UefiLoader
    from qemu_sdei.uefi.fw_cfg import GuestRam

    assert isinstance(loader, UefiLoader)
    ram = GuestRam(server.window.ram, boot.ram_base, boot.usable_size)
    server.emulate(DeviceFrames(server.guest, server.log, loader.items, ram))


def _meta(config: GuestConfig, firmware: Firmware, ring: Ring) -> dict[str, Any]:
    """What the trace says first of this guest."""
    now = time.monotonic_ns()
    return TraceMeta(
        guest=config.name,
        vcpus=config.nr_cpus,
        client_el=firmware.machine.client_el,
        monitor=firmware.machine.monitor,
        started_ns=now,
        realtime_ns=time.time_ns(),
        events=tuple(
            {"event": e.number, "name": e.name, "type": e.type.name.lower(), "priority": e.priority.name.lower()}
            for e in firmware.dispatcher.profile.events
        ),
        program=__version__,
        slots=ring.slots,
    ).document()


def _place_errors(server: Server, config: GuestConfig, profile: MachineDescription, *, goes_on: bool) -> None:
    """The error sources of a guest that boots by ACPI; others have none. `goes_on`: it runs already."""
    boot = BootConfig.from_json(config.boot) if config.boot else None
    if boot is None or boot.tables != "acpi" or not config.sdei:
        return
    area = AcpiArea.of(boot)
    server.errors.placed = area.sources(profile.sources)
    server.host_errors.usable = range(server.window.ram_base, area.base)
    server.errors.stage = Stage(server.window.ram, server.window.ram_base, area)
    if not goes_on and server.errors.placed:
        # 0.1 s of tables: now no guest waits for it, at its first error all of its vCPUs would.
        importlib.import_module("qemu_sdei.ras.block")


def _memory_signals(server: Server) -> MemorySignals | None:
    """Hears of pages that go bad at the host, before any other thread is started."""
    # Imported here: ctypes takes some milliseconds, and only guests with error sources can be told.
    from qemu_sdei.backend.loop.memory_signals import MemorySignals

    try:
        return MemorySignals(server.descriptors, server.host_errors.signalled)
    except OSError as error:
        complain(f"the guest will not be told of memory that goes bad at the host: {error}")
        return None


def _monitor(directory: Path) -> tuple[int, int]:
    """Version and proof of the monitor that QEMU runs: they stand in the very file that QEMU was given.

    Raises `UsageError`: it cannot be read, or is of a version that is not served.
    """
    path = directory / rundir.MONITOR
    try:
        with path.open("rb") as file:
            image = file.read(_MAX_MONITOR)
        return version_of(image), proof_of(image)
    except FileNotFoundError:
        return layout.VERSION, 0
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ProtocolError as error:
        raise UsageError(f"the guest in {directory} cannot be served: {error}") from None


def _connect(directory: Path, options: argparse.Namespace) -> Doorbell:
    path = str(directory / rundir.DOORBELL)
    if not options.lifeline:
        return Doorbell(path, options.doorbell_timeout)
    try:
        return Doorbell(path, options.doorbell_timeout, lambda: abandoned(directory))
    except GuestTimeoutError:
        if abandoned(directory):
            rundir.remove_if_dead(directory)
        raise


def _qemu(directory: Path, doorbell: Doorbell) -> Iterator[int]:
    """Processes that may be the guest's QEMU."""
    yield doorbell.server()
    found = locks.holder(directory / rundir.QEMU_LOCK)
    if found is not None:
        os.close(found[1])
        yield found[0]


def _alone(directory: Path) -> int:
    """The lock that says that this process serves the guest. Raises `SdeiError`: another one does."""
    limit = time.monotonic() + _LOCK_TIMEOUT
    while (lock := locks.try_lock(directory / rundir.BACKEND_LOCK)) is None:
        if time.monotonic() > limit:
            raise SdeiError(f"another backend serves the guest in {directory}")
        time.sleep(0.01)
    return lock


if __name__ == "__main__":
    sys.exit(main())
