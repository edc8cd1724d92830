"""Starts the guests that are measured: on the Python backend, on the C floor, on plain QEMU, all by the same code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei import rundir
from qemu_sdei.boot import flat
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.config import RAM_BASE
from qemu_sdei.errors import GuestTimeoutError, LostGuestError
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.window import Window
from qemu_sdei.vm.qemu_command import Wiring, command_line
from scripts.benchlib.checkout import ROOT

CPU: Final = "cortex-a72"


@dataclass
class Running:
    """A guest under measurement."""

    directory: Path
    qemu: subprocess.Popen[bytes]
    backend: subprocess.Popen[bytes] | None
    started: float
    """time.monotonic() just before QEMU was started."""

    def console(self) -> str:
        """The console's text so far."""
        return (self.directory / "console").read_text(errors="replace")

    def expect(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait for console text; the file is looked at every millisecond."""
        limit = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.console())
            if match:
                return match
            if self.qemu.poll() is not None and not re.search(pattern, self.console()):
                raise LostGuestError(f"QEMU ended before {pattern!r}", console=self.console().splitlines()[-20:])
            if time.monotonic() > limit:
                raise GuestTimeoutError(f"no {pattern!r} within {timeout} s", console=self.console().splitlines()[-20:])
            time.sleep(0.001)


_PREPARE: Final = """
import dataclasses, json, pathlib, sys
from qemu_sdei import rundir
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.config import GuestConfig
from qemu_sdei.monitor import image
directory, window, config = pathlib.Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
known = {field.name for field in dataclasses.fields(BootConfig)}
config["boot"] = {name: value for name, value in config["boot"].items() if name in known}
(directory / "monitor.bin").write_bytes(image.patched(window, config["nr_cpus"]))
(directory / rundir.CONFIG).write_text(GuestConfig(**config).to_json())
"""
"""Writes what a checkout's backend reads, by that checkout's own code."""


@contextlib.contextmanager
def guest(
    qemu: str, boot: BootConfig, *, floor: Path | None = None, injections: int = 0, checkout: Path = ROOT
) -> Iterator[Running]:
    """A guest on the Python backend of `checkout`, or on the C floor when `floor` names its binary."""
    directory = Path(tempfile.mkdtemp(prefix="qemu-sdei-bench-"))
    ram_fd = os.memfd_create("ram")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        os.ftruncate(ram_fd, boot.ram_size)
        window = layout.window_base(RAM_BASE, boot.ram_size)
        (directory / "console").touch()
        config = {"name": "bench", "nr_cpus": boot.nr_cpus, "cpu": CPU, "ram_size": boot.ram_size}
        above_el2 = boot.conduit == "hvc"
        if above_el2:  # not else: an older checkout does not know the word
            config["hypervisor"] = True
        prepare = [
            sys.executable,
            "-c",
            _PREPARE,
            str(directory),
            str(window),
            json.dumps(config | {"boot": boot.to_json()}),
        ]
        subprocess.run(prepare, cwd=checkout, env=environment(checkout), check=True)
        wiring = Wiring(
            ram=f"/proc/self/fd/{ram_fd}",
            doorbell=f"path={directory / rundir.DOORBELL}",
            console=("-chardev", f"file,id=console,path={directory / 'console'}", "-serial", "chardev:console"),
            monitor=str(directory / "monitor.bin"),
        )
        command = command_line(
            qemu,
            nr_cpus=boot.nr_cpus,
            ram_size=boot.ram_size,
            cpu=CPU,
            virtualization=above_el2,
            wiring=wiring,
            reboot=False,
        )
        started = time.monotonic()
        backend = None
        if floor is None:
            backend = subprocess.Popen(
                [sys.executable, "-m", "qemu_sdei.backend", str(directory), "--ram-fd", str(ram_fd)],
                cwd=checkout,
                env=environment(checkout),
                pass_fds=[ram_fd],
            )
            processes.append(backend)
        machine = subprocess.Popen(command, pass_fds=[ram_fd], stderr=subprocess.DEVNULL)
        processes.append(machine)
        if floor is not None:
            backend = _start_floor(floor, directory, ram_fd, boot, window, injections)
            processes.append(backend)
        yield Running(directory, machine, backend, started)
    finally:
        _end(processes)
        os.close(ram_fd)
        shutil.rmtree(directory)


def environment(checkout: Path) -> dict[str, str]:
    """The environment in which Python finds the package in `checkout`."""
    return os.environ | {"PYTHONPATH": str(checkout)}


def _start_floor(
    floor: Path, directory: Path, ram_fd: int, boot: BootConfig, window: int, injections: int
) -> subprocess.Popen[bytes]:
    """The floor can only answer: the guest is loaded here, once CPU 0 waits in its RESET frame."""
    view = Window(ram_fd, RAM_BASE, boot.ram_size, boot.nr_cpus)
    limit = time.monotonic() + 10
    while view.seq[0] == 0:
        if time.monotonic() > limit:
            raise GuestTimeoutError("CPU 0 posted no RESET frame within 10 s")
        time.sleep(0.001)
    entry = flat.load(view.ram, boot)
    view.close()
    arguments = [entry.pc, entry.x0, entry.x1, injections]
    path = f"/proc/self/fd/{ram_fd}"
    return subprocess.Popen(
        [
            str(floor),
            path,
            str(window - RAM_BASE),
            str(boot.nr_cpus),
            str(directory / rundir.DOORBELL),
            *map(str, arguments),
        ],
        pass_fds=[ram_fd],
        stdout=(directory / "floor.out").open("wb"),
    )


@contextlib.contextmanager
def plain(
    qemu: str,
    kernel: Path,
    initrd: Path,
    append: str,
    memory: int,
    cpus: int,
    firmware: Path | None = None,
    *,
    machine: str = "virt,gic-version=3",
    extra: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
) -> Iterator[Running]:
    """The same kernel on QEMU alone, with its built-in PSCI: by its direct kernel boot, or by a UEFI `firmware`."""
    directory = Path(tempfile.mkdtemp(prefix="qemu-sdei-bench-"))
    (directory / "console").touch()
    command = [
        *(qemu, "-no-user-config", "-nodefaults", "-display", "none", "-machine", machine, "-cpu", CPU),
        *(
            "-smp",
            str(cpus),
            "-m",
            str(memory >> 20),
            "-kernel",
            str(kernel),
            "-initrd",
            str(initrd),
            "-append",
            append,
        ),
        *("-chardev", f"file,id=console,path={directory / 'console'}", "-serial", "chardev:console", "-no-reboot"),
        *(("-bios", str(firmware)) if firmware else ()),
        *extra,
    ]
    started = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, pass_fds=tuple(pass_fds))
    try:
        yield Running(directory, process, None, started)
    finally:
        _end([process])
        shutil.rmtree(directory)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
