"""Options that describe a Linux guest beside its machine: what to boot, devices, how to run it."""

from __future__ import annotations

import argparse
from pathlib import Path

from qemu_sdei.cli.machine_arguments import machine_options, split_words
from qemu_sdei.errors import UsageError
from qemu_sdei.vm.options import BUILTIN, FLAT, NO_KERNEL, GuestOptions

_LONGEST = 86400.0
"""Seconds: threads and event loops take no number that is much larger."""


def add_guest_options(parser: argparse.ArgumentParser) -> None:
    """Add what a Linux guest takes beside `machine_arguments.add_machine_options`."""
    group = parser.add_argument_group("what to boot")
    group.add_argument(
        "--kernel",
        metavar="K",
        help="arm64 Image, plain or compressed, a linux-image package (.deb), or a kernel's build tree; flat:FILE for "
        "any other binary; builtin:NAME for one of our bare-metal guests (bench, "
        "compare, conformance, selftest); none: UEFI boots what it finds (default: Debian's stock kernel)",
    )
    group.add_argument(
        "--disk",
        action="append",
        default=[],
        metavar="FILE[,OPTIONS]",
        help="disk image that UEFI boots, with options of QEMU's -drive: as --uefi --kernel none --drive FILE; needs "
        "--hypervisor",
    )
    group.add_argument(
        "--uefi",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="UEFI boots the kernel, as the guest's own firmware, by ACPI unless --dt: Debian's, or this image for the "
        "arm64 virt machine; needs --hypervisor",
    )
    group.add_argument(
        "--uefi-vars", metavar="FILE", help="keep UEFI's variables there, made if it is not there (default: nowhere)"
    )
    group.add_argument(
        "--series",
        metavar="S",
        help="series of Debian's kernel, such as 6.1 or 6.12; a flavour: 6.12-rt, 6.12-cloud, 6.12-16k; from another "
        "suite: 7.3/trixie-backports; own-7.3: the kernel that scripts/crash-kernel built",
    )
    group.add_argument(
        "--modules",
        metavar="DIR",
        help="the kernel's modules: our own initramfs loads the ones that the guest's devices need (default: the "
        "modules of the package or the build tree)",
    )
    group.add_argument("--initrd", metavar="I", help="initrd (default: our own initramfs, with a shell)")
    group.add_argument("--busybox", metavar="FILE", help="static arm64 busybox for our own initrd (default: Debian's)")
    group.add_argument("--append", default="", metavar="WORDS", help="words to add to the kernel command line")
    group.add_argument(
        "--acpi-table",
        action="append",
        default=[],
        metavar="FILE",
        help="add this ACPI table (binary) to the machine's tables; needs --acpi or --ras. May be repeated",
    )
    group.add_argument(
        "--boot-error",
        metavar="FILE",
        help="error records that the first kernel finds in a BERT, as if they were of the boot before: bytes, "
        "hexadecimal, base64 or JSON; needs --acpi or --ras",
    )
    tables = group.add_mutually_exclusive_group()
    tables.add_argument("--acpi", dest="boot", action="store_const", const="acpi", default="auto", help="boot by ACPI")
    tables.add_argument(
        "--dt",
        dest="boot",
        action="store_const",
        const="dt",
        help="boot by device tree (the default without --ras and UEFI)",
    )
    group.add_argument("--ras", action="store_true", help="give the guest hardware error sources; it boots by ACPI")
    group.add_argument(
        "--file", action="append", default=[], metavar="PATH[:GUEST]", help="put a file into our own initramfs"
    )
    group.add_argument(
        "--root",
        metavar="DEVICE",
        help="mount this device, such as /dev/vda, and start its init in place of our own shell",
    )
    group.add_argument(
        "--client",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="put the SDEI client module into our own initramfs as /lib/sdei_test.ko (default: build it; "
        "FILE: use this one)",
    )
    group = parser.add_argument_group("devices")
    group.add_argument(
        "--drive",
        action="append",
        default=[],
        metavar="FILE[,OPTIONS]",
        help="attach this disk image; options are QEMU's -drive options",
    )
    group.add_argument(
        "--snapshots", metavar="FILE", help="qcow2 image for `qemu-sdei snapshot`; made if it does not exist"
    )
    group.add_argument(
        "--share",
        action="append",
        default=[],
        metavar="DIR[:TAG]",
        help="share this directory by virtio-9p; our own initramfs mounts it on /mnt/TAG",
    )
    group.add_argument("--net", action="store_true", help="attach a network card on QEMU's user-mode network")
    group.add_argument(
        "--forward",
        action="append",
        default=[],
        metavar="HOST:GUEST",
        help="forward TCP port HOST of 127.0.0.1 to port GUEST of the guest",
    )
    group = parser.add_argument_group("how to run it")
    group.add_argument(
        "--memory-path", metavar="DIR", help="keep guest RAM in an unnamed file in DIR (default: in memory)"
    )
    group.add_argument(
        "--qemu-arg",
        action="append",
        default=[],
        metavar="ARG",
        help="words to add to QEMU's command line: --qemu-arg='-device X'. May be repeated",
    )
    group.add_argument(
        "--gdb",
        type=int,
        metavar="PORT",
        help="gdb server at this port of 127.0.0.1; the kernel gets nokaslr, and its console may be silent for a "
        "day, or as long as --boot-timeout says",
    )
    group.add_argument(
        "--on-panic",
        choices=("end", "continue"),
        default="end",
        help="when the guest's kernel panics: end with exit code 255 (the default), or continue and wait for "
        "the next kernel",
    )
    group.add_argument(
        "--kdump",
        nargs="?",
        const=True,
        default=False,
        metavar="KERNEL",
        help="load a capture kernel. After a panic it copies a vmcore to the host and powers off. KERNEL: a "
        "file, or a series as in --series (default: the same kernel)",
    )
    group.add_argument(
        "--crashkernel", metavar="M", help="memory for the capture kernel (default: half of RAM, at most 512M)"
    )
    group.add_argument(
        "--kdump-cpus",
        type=int,
        default=1,
        metavar="N",
        help="number of vCPUs that the capture kernel starts (default: 1)",
    )
    group.add_argument(
        "--kdump-timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="longest time in seconds for each stage of a crash dump, and without progress while copying "
        "(default: 120)",
    )
    group.add_argument(
        "--vmcore",
        metavar="FILE",
        help="file for the crash dump (default: vmcore, vmcore-2, ..., the first that does not exist)",
    )
    group.add_argument(
        "--die-with-owner",
        action="store_const",
        const=True,
        help="end the guest if this command is killed by kill -9 (default: the guest runs on, see `qemu-sdei attach`)",
    )
    group.add_argument(
        "--low-latency",
        action="store_true",
        help="keep all cores of the host awake while the guest is there: an event reaches an idle guest sooner. Costs "
        "electricity; needs write access to /dev/cpu_dma_latency",
    )
    group.add_argument(
        "--boot-timeout",
        type=float,
        metavar="S",
        help="end with an error if the console prints nothing for S seconds during the boot (default: 60)",
    )
    group.add_argument(
        "--start-timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="end with an error if QEMU or the backend, while starting, neither answers nor uses CPU time for "
        "S seconds (default: 30), or takes 10 times as long in all",
    )


def guest_options(args: argparse.Namespace) -> GuestOptions:
    """`GuestOptions` from what this and `machine_arguments` added. Raises `UsageError`."""
    from dataclasses import replace

    boot_timeout = args.boot_timeout
    if boot_timeout is None:
        boot_timeout = 60.0 if args.gdb is None else _LONGEST
    if not boot_timeout > 0:
        raise UsageError("--boot-timeout must be more than 0 seconds")
    if not 0 < args.kdump_timeout <= _LONGEST:
        raise UsageError(f"--kdump-timeout must be more than 0 seconds, and {_LONGEST:g} at most")
    if not 0 < args.start_timeout <= _LONGEST:
        raise UsageError(f"--start-timeout must be more than 0 seconds, and {_LONGEST:g} at most")
    options = replace(
        machine_options(args),
        kernel=args.kernel,
        uefi=args.uefi,
        uefi_vars=args.uefi_vars,
        series=args.series,
        modules=args.modules,
        initrd=args.initrd,
        busybox=args.busybox,
        append=args.append,
        acpi_tables=args.acpi_table,
        boot_error=args.boot_error,
        boot=args.boot,
        ras=args.ras,
        helper=_has_helper(args),
        command=args.guest_command,
        files=dict(_file(text) for text in args.file),
        client=args.client,
        drives=args.drive,
        snapshots=args.snapshots,
        shares=args.share,
        net=args.net,
        forwards=args.forward,
        root=args.root,
        memory_path=args.memory_path,
        qemu_args=split_words(args.qemu_arg),
        gdb=args.gdb,
        on_panic=args.on_panic,
        kdump=args.kdump,
        crashkernel=args.crashkernel,
        kdump_cpus=args.kdump_cpus,
        kdump_timeout=args.kdump_timeout,
        vmcore=args.vmcore,
        die_with_owner=args.die_with_owner,
        low_latency=args.low_latency,
        boot_timeout=boot_timeout,
        start_timeout=args.start_timeout,
    )
    if not args.disk:
        return options
    from qemu_sdei.vm.uefi_boot import with_disks

    return with_disks(options, args.disk)


def _has_helper(args: argparse.Namespace) -> bool:
    """Whether the guest is to have the helper: where hardware errors are tried, and the initramfs is ours."""
    none = args.kernel == NO_KERNEL or (args.kernel is None and args.disk)
    bare = none or (args.kernel or "").startswith((BUILTIN, FLAT))
    return bool(args.ras and args.initrd is None and args.root is None and not bare)


def _file(text: str) -> tuple[str, Path]:
    path, _, target = text.partition(":")
    return (target or Path(path).name), Path(path)
