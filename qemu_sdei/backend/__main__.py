"""`python -m qemu_sdei.backend RUNDIR [--ram-fd N] [--lifeline] [--incoming]`: the process that serves one guest.

Started by the machine side for its own guests, and by `qemu-sdei backend` for a QEMU that somebody else runs. With
`--lifeline` the end of standard input means that the supervisor is gone: the run directory is removed and the process
ends. With `--incoming` it waits for a guest that arrives by migration.

Imports are few on purpose: a guest waits for this process from its first instruction on.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import time
from pathlib import Path

from qemu_sdei import rundir
from qemu_sdei.backend.control import Control
from qemu_sdei.backend.document import machine_of
from qemu_sdei.backend.firmware import Firmware
from qemu_sdei.backend.journal import Journal
from qemu_sdei.backend.loader import loader_for
from qemu_sdei.backend.server import Server
from qemu_sdei.boot.area import Announced
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import SdeiError
from qemu_sdei.monitor.doorbell import Doorbell
from qemu_sdei.monitor.window import Window
from qemu_sdei.sdei.switches import profile_of
from qemu_sdei.smccc.userfile import load_services

JOURNAL = "journal"
_DOORBELL_TIMEOUT = 30.0
_LAST_LOOK = 0.5
"""Seconds to wait for the supervisor's end after QEMU's."""


def main(argv: list[str] | None = None) -> int:
    """Serve until QEMU goes away. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m qemu_sdei.backend", description=__doc__)
    parser.add_argument("rundir", type=Path)
    parser.add_argument("--ram-fd", type=int)
    parser.add_argument("--lifeline", action="store_true")
    parser.add_argument("--incoming", action="store_true")
    parser.add_argument("--doorbell-timeout", type=float, default=_DOORBELL_TIMEOUT)
    options = parser.parse_args(argv)
    try:
        return serve(options.rundir, options.ram_fd, options.lifeline, options.doorbell_timeout, options.incoming)
    except SdeiError as error:
        print(f"qemu-sdei backend: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def serve(directory: Path, ram_fd: int | None, lifeline: bool, doorbell_timeout: float, incoming: bool = False) -> int:
    """Serve the guest of a run directory. `incoming`: it arrives by migration, and is not touched before."""
    config = GuestConfig.from_json((directory / rundir.CONFIG).read_bytes())
    services = [service for path in config.services for service in load_services(Path(path))]
    fd = os.open(config.ram_path, os.O_RDWR | os.O_CLOEXEC) if ram_fd is None and config.ram_path else ram_fd
    if fd is None:
        raise SdeiError("no guest RAM: neither --ram-fd nor ram_path in guest.json")
    window = Window(fd, config.ram_base, config.ram_size, config.nr_cpus)
    profile = profile_of(config)
    firmware = Firmware(
        config.nr_cpus,
        client_el=2 if config.virtualization else 1,
        profile=profile,
        sdei=config.sdei,
        services=services,
        boot=loader_for(BootConfig.from_json(config.boot), window, Announced.of(profile)) if config.boot else None,
    )
    journal = Journal(directory / JOURNAL)
    doorbell = Doorbell(str(directory / rundir.DOORBELL), doorbell_timeout)
    server = Server(window, doorbell, firmware, journal, time.perf_counter_ns)
    server.machine = machine_of(config)
    orphaned: list[bool] = []

    def supervisor_event(_events: int) -> None:
        with contextlib.suppress(OSError):
            if os.read(0, 4096):
                return
        orphaned.append(True)
        server.stop()

    if lifeline:
        server.watch(0, supervisor_event)
    trace = Path(config.trace).open("a") if config.trace else None  # noqa: SIM115 - for the life of the process
    if trace is not None:
        server.trace_to(trace)
    if server.recover() or not incoming:
        window.announce()  # also to a guest that has run: it may have written over the header
    else:
        server.held = True
    control = Control(server, directory / rundir.CONTROL, {"name": config.name, "nr_cpus": config.nr_cpus})
    try:
        server.run()
    finally:
        control.close()
        doorbell.close()
        if trace is not None:
            trace.close()
        # QEMU dies with its supervisor: the doorbell may be heard first, the end of standard input just behind it.
        if orphaned or (lifeline and select.select([0], [], [], _LAST_LOOK)[0]):
            rundir.remove_if_dead(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
