"""From options to a plan: checks that need nothing to be created, and defaults that have to be found."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.config import RAM_BASE
from qemu_sdei.errors import UsageError
from qemu_sdei.host import given_kernels, memory
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.paths import readable_file
from qemu_sdei.vm import capture_kernel, debugger, linux_kernel, uefi_boot
from qemu_sdei.vm.acpi_extras import AcpiExtras
from qemu_sdei.vm.capture_kernel import CaptureKernel
from qemu_sdei.vm.devices import Devices, devices
from qemu_sdei.vm.elected_services import elected
from qemu_sdei.vm.machine_checks import check_machine
from qemu_sdei.vm.options import (
    BUILTIN,
    CONTINUE,
    DIE_WITH_OWNER,
    END,
    FLAT,
    NO_KERNEL,
    GuestOptions,
)
from qemu_sdei.vm.qemu_command import CHANNEL_CARD, HELPER_CARD

if TYPE_CHECKING:
    pass

_MIB: Final = 1 << 20

DEFAULT_APPEND: Final = "earlycon console=ttyAMA0"
"""earlycon: a kernel that dies before its console driver is up still says something; the device tree tells it where."""


@dataclass(frozen=True)
class Plan:
    """Options that passed all checks, with every default filled in."""

    options: GuestOptions
    qemu: Path
    ram_size: int
    kernel: str
    """Absolute path, or `builtin:NAME`; empty: UEFI boots what it finds."""
    flat: bool
    """A bare-metal guest, which is no Linux."""
    initrd: Path | None
    busybox: Path | None
    """Set when our own initramfs is to be built."""
    append: str
    reboot: bool
    devices: Devices = field(default_factory=Devices)
    client: Path | None = None
    """The client module that our own initramfs carries."""
    drivers: Path | None = None
    """Directory with the kernel's modules; None: what is needed is taken to be built in."""
    config: Path | None = None
    """The kernel's configuration, where that is known."""
    remarks: tuple[str, ...] = ()
    """What the user should know of the kernel, in sentences."""
    capture: CaptureKernel | None = None
    """What runs when the kernel has panicked."""
    extras: AcpiExtras = field(default_factory=AcpiExtras)
    uefi: str | None = None
    """Absolute path of the UEFI image that boots it."""

    @property
    def acpi(self) -> bool:
        """Linux gets ACPI tables in place of a device tree."""
        wanted = self.options.ras or self.uefi is not None
        return self.options.boot == "acpi" or (self.options.boot == "auto" and wanted)

    @property
    def die_with_owner(self) -> bool:
        """The guest is to be killed by the kernel when its owner is. Where nobody has said so, guests of a prompt are
        (Python's, IPython's, a notebook's kernel: they have `sys.ps1`), and those of a program are not.
        """
        wanted = self.options.die_with_owner
        if wanted is None:
            said = os.environ.get(DIE_WITH_OWNER, "")
            return said != "0" if said else hasattr(sys, "ps1")
        return wanted

    @property
    def own_initramfs(self) -> bool:
        """`Guest.run` and `command` work."""
        return self.busybox is not None and self.options.root is None

    def initramfs(self, nonce: str) -> bytes:
        """Our own initramfs for this guest. Raises `UsageError`."""
        from qemu_sdei.boot import initramfs
        from qemu_sdei.host import kernel_drivers
        from qemu_sdei.host.client_module import MODULE_PATH

        assert self.busybox is not None
        options = self.options
        busybox = self.busybox.read_bytes()
        capture = {} if self.capture is None else self.capture.files(busybox, nonce)
        files = {name: Path(path) for name, path in options.files.items()}
        if self.client is not None:
            files[MODULE_PATH] = self.client
        wanted = [
            *(kernel_drivers.DISK if self.devices.drives or options.root else ()),
            *(kernel_drivers.NET if self.devices.net else ()),
            *(kernel_drivers.SHARE if self.devices.tags else ()),
            *(kernel_drivers.CHANNEL if options.channel else ()),
        ]
        built = initramfs.build(
            busybox,
            command=None if options.command is None else list(options.command),
            nonce=nonce,
            extra_files={name: (path.read_bytes(), path.stat().st_mode & 0o777) for name, path in files.items()}
            | capture,
            drivers=kernel_drivers.load_order(self.drivers, wanted) if self.drivers is not None else (),
            shares=self.devices.tags,
            net=self.devices.net,
            root=options.root,
            helper=HELPER_CARD if options.helper else None,
            channel=CHANNEL_CARD if options.channel else None,
            apart=options.apart,
        )
        if self.capture is not None:
            self.capture.check_first(self.kernel, len(built), self._usable)
        return built

    @property
    def _usable(self) -> int:
        """Bytes of RAM that the guest is told of."""
        from qemu_sdei.monitor.layout import window_base

        return window_base(RAM_BASE, self.ram_size) - uefi_boot.hidden(self.uefi) - RAM_BASE

    def boot_json(self, initrd: Path | None) -> dict[str, Any]:
        """The JSON form of the `BootConfig`, `initrd` being the file to load. Raises `UsageError`."""
        from qemu_sdei.boot.config import BootConfig

        return BootConfig(
            kind="flat" if self.flat else "linux" if self.kernel else "uefi",
            kernel=self.kernel,
            initrd=None if initrd is None else str(initrd),
            append=self.append,
            tables="acpi" if self.acpi else "dt",
            uefi=self.uefi,
            conduit="hvc" if self.options.hypervisor else "smc",
            sdei=self.options.sdei,
            ram_base=RAM_BASE,
            ram_size=self.ram_size,
            hidden_size=self.ram_size - self._usable,
            nr_cpus=self.options.smp,
            acpi_tables=self.extras.acpi_tables,
            boot_errors=self.extras.boot_errors,
        ).to_json()


def prepare(options: GuestOptions, progress: Progress = no_progress) -> Plan:
    """Check `options` and find what they leave open: QEMU, Debian's kernel and busybox (these may be downloaded).

    Raises:
        UsageError: something of it cannot be; nothing was created.
    """
    flat = isinstance(options.kernel, str) and options.kernel.startswith((BUILTIN, FLAT))
    if options.kernel is not None and options.series is not None:
        raise UsageError("a kernel file and a Debian kernel series were both given: give one of them")
    if flat and (options.initrd is not None or options.command is not None):
        raise UsageError(f"{options.kernel} is not a Linux kernel: it takes neither an initrd nor a command")
    if options.events is not None:
        readable_file(options.events, "events file")
    options = elected(options)
    check_tables(options, flat)
    uefi_boot.check_options(options, flat=flat)
    bare = flat or options.kernel == NO_KERNEL
    if options.on_panic not in (END, CONTINUE):
        raise UsageError(f"on_panic {options.on_panic!r} is not understood: give {END!r} or {CONTINUE!r}")
    if options.command is not None and options.initrd is not None:
        raise UsageError("a command runs in our own initramfs: leave out --initrd, or the command")
    if options.command is not None and not options.command:
        raise UsageError("the command to run is empty")
    for given, what in (
        (options.files, "files can only be added to"),
        (options.client, "the client module is put into"),
        (options.root, "a root device is mounted by"),
        (options.helper, "the helper is a part of"),
    ):
        if given and (flat or options.initrd is not None):
            reason = f"{options.kernel} is not a Linux kernel" if flat else "leave out --initrd"
            raise UsageError(f"{what} our own initramfs: {reason}")
    if options.root is not None:
        if options.command is not None:
            raise UsageError("a command runs in our own initramfs: leave out --root, or the command")
        if not re.fullmatch(r"/dev/[A-Za-z0-9_/-]+", options.root):
            raise UsageError(f"root device {options.root!r}: give one of the guest's, such as /dev/vda")
        if options.helper:
            raise UsageError("the helper is a part of our own initramfs: leave out --root, or helper=True")
    options = with_channel(options, flat)
    options = capture_kernel.settled(options, bare)
    attached = devices(options)
    uefi_boot.check_drives(options)
    for path in options.files.values():
        readable_file(path, "file for the guest")
    kernel = None
    named = None
    if flat:
        kernel = str(options.kernel)
        if kernel.startswith(FLAT):
            kernel = str(readable_file(kernel.removeprefix(FLAT), "guest binary"))
    elif options.kernel == NO_KERNEL:
        kernel = ""
    elif options.kernel is not None:
        named = given_kernels.checked(options.kernel, progress)
    elif options.modules is not None and bare:
        raise UsageError("modules are loaded by our own initramfs: leave out --modules")
    initrd = None if options.initrd is None else readable_file(options.initrd, "initrd")
    given_busybox = None if options.busybox is None else readable_file(options.busybox, "busybox")
    if options.gdb is not None:
        debugger.check(options.gdb)
    qemu, size = check_machine(options)
    memory.check_free(size, None if options.memory_path is None else Path(options.memory_path))

    append = options.append
    if not bare:
        # panic=-1: with a command to run, a panic must end the guest (-no-reboot) and not wait for somebody to see it.
        words = [DEFAULT_APPEND, "panic=-1" if options.command is not None else "", options.append]
        append = " ".join(word for word in words if word)
        if options.gdb is not None:
            append = debugger.command_line(append)
    busybox = driver_folder = capture = config = None
    remarks: tuple[str, ...] = ()
    client = None if isinstance(options.client, bool) else readable_file(options.client, "client module")
    if not bare:
        from qemu_sdei.host.debian import DebianCache

        cache = DebianCache(progress=progress)
        booted = linux_kernel.find(
            options,
            named,
            cache,
            drivers=initrd is None and bool(attached.seen or options.root),
            channel=options.channel,
            progress=progress,
        )
        kernel, driver_folder, config = str(booted.image), booted.drivers, booted.config
        remarks = booted.remarks
        if options.gdb is not None:
            remarks = (*remarks, debugger.told(options.gdb, booted.vmlinux))
        client = booted.client or client
        if options.kdump is not False:
            capture = capture_kernel.find(options, cache, booted.debian or booted, append, size)
            append += f" crashkernel={capture.reserved // _MIB}M"
        if initrd is None:
            busybox = given_busybox or cache.busybox()
    assert kernel is not None
    plan = Plan(
        options=options,
        qemu=qemu,
        ram_size=size,
        kernel=kernel,
        flat=flat,
        initrd=initrd,
        busybox=busybox,
        append=append,
        reboot=options.command is None if options.reboot is None else options.reboot,
        devices=attached,
        client=client,
        drivers=driver_folder,
        config=config,
        remarks=remarks,
        capture=capture,
        uefi=uefi_boot.find_image(options, progress),
    )
    plan = replace(plan, extras=AcpiExtras.of(options, acpi=plan.acpi))
    plan.boot_json(initrd)  # so that a bad command line is known now
    return plan


def with_channel(options: GuestOptions, flat: bool) -> GuestOptions:
    """`options` with the agent's channel only where our own initramfs runs, which has the agent. `flat`: the guest is
    no Linux.
    """
    ours = not (flat or options.kernel == NO_KERNEL) and options.initrd is None and options.root is None
    if options.channel and (not ours or options.kdump):
        return replace(options, channel=False, apart=False)
    return options


def check_tables(options: GuestOptions, builtin: bool) -> None:
    """Check how the machine is described to the guest. Raises `UsageError`."""
    if options.boot not in ("auto", "acpi", "dt"):
        raise UsageError(f"boot {options.boot!r} is not understood: give 'acpi', 'dt' or 'auto'")
    if options.ras and options.boot == "dt":
        raise UsageError("hardware errors are announced by ACPI only: leave out --dt, or --ras")
    if options.ras and not options.sdei:
        raise UsageError("hardware errors are signalled by SDEI events: leave out --no-sdei, or --ras")
    if builtin and (options.ras or options.boot == "acpi"):
        raise UsageError(f"{options.kernel} is not a Linux kernel and does not use ACPI")
