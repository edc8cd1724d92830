"""`qemu-sdei qemu-args`: what a QEMU or libvirt of the user's own needs to have its firmware served from here."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
from pathlib import Path
from typing import Any, Final

from qemu_sdei import paths
from qemu_sdei.cli.backend_command import has_qemu, locked
from qemu_sdei.cli.machine_arguments import add_machine_options, machine_options
from qemu_sdei.cli.output import add_verbosity, print_data, print_json, say
from qemu_sdei.errors import SdeiError, UsageError

_SHM: Final = Path("/dev/shm")
_DEFAULT: Final = re.compile(r"qemu-sdei-.+-[0-9a-f]{8}\.ram")


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "qemu-args",
        description="Write a directory with the EL3 monitor and the guest's description, and print a QEMU command "
        "line, to which you add disks and networks. `qemu-sdei backend --dir DIR` then serves that QEMU.",
    )
    parser.add_argument("--dir", required=True, metavar="DIR", help="directory to write; created if it does not exist")
    parser.add_argument("--kernel", required=True, metavar="K", help="arm64 Image to boot")
    parser.add_argument("--initrd", metavar="I", help="initrd")
    parser.add_argument("--append", default="console=ttyAMA0", metavar="WORDS", help="kernel command line")
    parser.add_argument("--acpi", action="store_true", help="boot by ACPI (default: by device tree)")
    parser.add_argument("--ram", metavar="FILE", help="RAM file (default: one in /dev/shm)")
    parser.add_argument("--libvirt", action="store_true", help="print XML for a libvirt domain")
    add_machine_options(parser)
    add_verbosity(parser, json_output=True)
    # Nobody compares RAM when the user migrates a QEMU of theirs.
    parser.set_defaults(run=run, pad_memory=True)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from dataclasses import replace

    from qemu_sdei import rundir
    from qemu_sdei.host import given_kernels
    from qemu_sdei.monitor.image import with_proof
    from qemu_sdei.vm.guest_json import check_boot, guest_config, monitor_image
    from qemu_sdei.vm.machine_checks import check_machine
    from qemu_sdei.vm.plan import Plan
    from qemu_sdei.vm.qemu_command import Wiring, machine_arguments

    directory = paths.absolute(args.dir)
    name = args.name or _name_of(directory)
    options = replace(machine_options(args), name=name, boot="acpi" if args.acpi else "dt")
    qemu, size = check_machine(options)
    rundir.check_socket_path(directory / rundir.DOORBELL, "use a --dir with a shorter path")
    if "," in str(directory) or "," in str(args.ram or ""):
        raise UsageError("QEMU takes no comma in these paths: use another --dir or --ram")
    initrd = None if args.initrd is None else paths.readable_file(args.initrd, "initrd")
    builtin = args.kernel.startswith("builtin:")
    plan = Plan(
        options=options,
        qemu=qemu,
        ram_size=size,
        kernel=args.kernel if builtin else str(given_kernels.checked(args.kernel).image),
        flat=builtin,
        initrd=initrd,
        busybox=None,
        append=args.append,
        reboot=True,
    )
    check_boot(guest_config(plan, name, initrd))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"directory {directory} cannot be written: {error.strerror}") from None
    with locked(directory / rundir.LOCK):
        if has_qemu(directory):
            raise UsageError(f"a QEMU runs with {directory}: end it first, or use another --dir")
        ram = _make_ram(args.ram, name, size, directory / rundir.CONFIG)
        config = guest_config(plan, name, initrd, ram)
        _write(directory / rundir.MONITOR, with_proof(monitor_image(plan)))
        _write(directory / rundir.CONFIG, config.to_json().encode())
    words = machine_arguments(
        nr_cpus=options.smp,
        topology=options.topology,
        ram_size=size,
        cpu=options.cpu,
        virtualization=options.has_el2,
        wiring=Wiring(
            ram=str(ram),
            doorbell=f"path={directory / rundir.DOORBELL}",
            # libvirt's own <serial> comes first by itself.
            console=() if args.libvirt else ("-serial", "mon:stdio"),
            monitor=str(directory / rundir.MONITOR),
        ),
    )
    if args.json:
        print_json({"arguments": words, "directory": str(directory), "ram": str(ram), "libvirt": _libvirt(words)})
    elif args.libvirt:
        print_data(_libvirt(words) + "\n")
    else:
        # -nodefaults: QEMU would add a network card, whose boot ROM Debian has in a package of its own.
        print_data(f"{shlex.quote(str(qemu))} \\\n  {_lines(words)} \\\n  -nodefaults \\\n  -display none\n")
    if not (args.json or args.quiet):
        backend = f"qemu-sdei backend --dir {shlex.quote(args.dir)}"
        comment = ("<!--", "-->") if args.libvirt else ("#", "")
        for line in (
            f"serve it, started before or after QEMU: {backend}",
            f"guest RAM is the file {ram} ({args.memory}, mode 0600); the backend removes it when it ends after QEMU,",
            f"else you do: rm -r {shlex.quote(args.dir)} {shlex.quote(str(ram))}",
        ):
            say(f"{comment[0]} {line} {comment[1]}".rstrip())
    return 0


def _name_of(directory: Path) -> str:
    from qemu_sdei.config import NAME_PATTERN

    return directory.name if NAME_PATTERN.fullmatch(directory.name) else "guest"


def _make_ram(wanted: str | None, name: str, size: int, old_config: Path) -> Path:
    """Make the RAM file; one that an earlier run made for the same directory, and nobody uses, gives way."""
    from qemu_sdei.config import GuestConfig
    from qemu_sdei.host import memory

    # Everybody may write to /dev/shm: a name that cannot be guessed is one that nobody made before us.
    ram = paths.absolute(wanted) if wanted else _SHM / f"qemu-sdei-{name}-{os.urandom(4).hex()}.ram"
    if not ram.exists():
        memory.check_free(size, ram.parent, "--ram")
    # Here and not by QEMU, which would give it the mode of the user's umask.
    memory.create_named(ram, size)
    with contextlib.suppress(OSError, SdeiError):
        old = Path(GuestConfig.from_json(old_config.read_bytes()).ram_path or "/")
        if old != ram and old.parent == _SHM and _DEFAULT.fullmatch(old.name):
            old.unlink()
    return ram


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _lines(words: list[str]) -> str:
    """Options one a line, each with its value."""
    lines: list[str] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += " " + shlex.quote(word)
    return " \\\n  ".join(lines)


def _libvirt(words: list[str]) -> str:
    # Here, because it loads an HTTP client, which no other command needs.
    from xml.sax.saxutils import quoteattr

    arguments = "\n".join(f"    <qemu:arg value={quoteattr(word)}/>" for word in words)
    return (
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n"
        "  <!-- into your domain of machine 'virt': no <loader>, no <kernel>, one <serial> -->\n"
        f"  <qemu:commandline>\n{arguments}\n  </qemu:commandline>\n</domain>"
    )
