"""From options to a plan: checks that need nothing to be created, and defaults that have to be found."""

from __future__ import annotations

import math
import os
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei import idle_states, paths
from qemu_sdei.config import MAX_CPUS, RAM_BASE, GuestConfig, check_name
from qemu_sdei.errors import UsageError
from qemu_sdei.host import memory
from qemu_sdei.host.cpu_models import check_cpu, check_page_size
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.smccc import call_filter
from qemu_sdei.vm import capture_kernel, debugger, elected_services, linux_kernel, uefi_boot
from qemu_sdei.vm.acpi_extras import AcpiExtras
from qemu_sdei.vm.capture_kernel import CaptureKernel
from qemu_sdei.vm.devices import Devices, devices
from qemu_sdei.vm.elected_services import elected
from qemu_sdei.vm.options import (
    BUILTIN,
    CONTINUE,
    DIE_WITH_OWNER,
    END,
    FLAT,
    NO_KERNEL,
    SMC,
    GuestOptions,
)
from qemu_sdei.vm.qemu_command import CHANNEL_CARD, HELPER_CARD

if TYPE_CHECKING:
    from qemu_sdei.host.given_kernels import GivenKernel
    from qemu_sdei.profiles.firmware_profile import FirmwareProfile
    from qemu_sdei.sdei.machine_description import MachineDescription

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


def check_machine(options: GuestOptions) -> tuple[Path, int]:
    """Check what concerns QEMU alone; return its path and the RAM size in bytes. Raises `UsageError`."""
    from qemu_sdei.host.environment import find_qemu
    from qemu_sdei.host.lost_pages import LOSES_NOTHING

    if not 1 <= options.smp <= MAX_CPUS:
        raise UsageError(f"{options.smp} vCPUs are not possible: give 1 to {MAX_CPUS}")
    check_topology(options)
    check_hypervisor(options)
    qemu = find_qemu(None if options.qemu is None else Path(options.qemu))
    padded = options.pad_memory
    if padded is None:
        where = None if options.memory_path is None else Path(options.memory_path)
        padded = qemu.version < LOSES_NOTHING and memory.padded_by_default(options.memory, options.smp, where)
    size = memory.ram_size(options.memory, padded=padded)
    if options.name is not None:
        check_name(options.name)
    for path, what in ((options.events, "events file"), *((service, "service") for service in options.services)):
        if path is not None:
            readable_file(path, what)
    call_filter.parse(options.smccc_filter)
    elected_services.check(options)
    if options.firmware is not None:
        from qemu_sdei.profiles.firmware_profile import load

        load(options.firmware)
    if options.trace is not None:
        writable_file(options.trace, "trace")
    if options.low_latency and (why := idle_states.why_not()) is not None:
        raise UsageError(f"the host's cores cannot be kept awake: {why}; run as root, or leave out --low-latency")
    check_cpu(options.cpu, qemu.path)
    return qemu.path, size


def check_hypervisor(options: GuestOptions) -> None:
    """Check what EL2 is to be, and what SMC is. Raises `UsageError`."""
    if options.hypervisor and options.virtualization:
        raise UsageError("EL2 is the guest's with --virtualization, and ours with --hypervisor: leave out one of them")
    if options.smc not in SMC:
        raise UsageError(f"smc {options.smc!r} is not understood: give {', '.join(map(repr, SMC))}")
    if options.smc != SMC[0] and not options.hypervisor:
        raise UsageError(f"without a hypervisor a guest calls by SMC: --smc {options.smc} needs --hypervisor")
    if not options.stage2 and not options.hypervisor:
        raise UsageError("stage 2 is only there with a hypervisor: --no-stage2 needs --hypervisor")


def check_topology(options: GuestOptions) -> None:
    """Check that the levels of `topology` are QEMU's and that there are just enough of them. Raises `UsageError`."""
    if not options.topology:
        return
    levels: dict[str, int] = {}
    for word in options.topology.split(","):
        level, _, count = word.partition("=")
        if (
            level not in ("sockets", "clusters", "cores", "threads")
            or level in levels
            or not re.fullmatch("[0-9]{1,3}", count)
        ):
            raise UsageError(
                f"the CPU topology {word!r} is not understood: write it as QEMU's -smp, such as 6,sockets=2,cores=3"
            )
        levels[level] = int(count)
    if math.prod(levels.values()) != options.smp:
        raise UsageError(f"{options.topology} makes {math.prod(levels.values())} vCPUs, not {options.smp}")


def prepare(options: GuestOptions, progress: Progress = no_progress) -> Plan:
    """Check `options` and find what they leave open: QEMU, Debian's kernel and busybox (these may be downloaded).

    Raises:
        UsageError: something of it cannot be; nothing was created.
    """
    flat = isinstance(options.kernel, str) and options.kernel.startswith((BUILTIN, FLAT))
    if options.kernel is not None and options.series is not None:
        raise UsageError("a kernel file and a Debian kernel series were both given: give one of them")
    if flat and (options.initrd is not None or options.command is not None):
        raise UsageError(f"{options.kernel} is no Linux: it takes neither an initrd nor a command")
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
            reason = f"{options.kernel} is no Linux" if flat else "leave out --initrd"
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
    named: GivenKernel | None = None
    if flat:
        kernel = str(options.kernel)
        if kernel.startswith(FLAT):
            kernel = str(readable_file(kernel.removeprefix(FLAT), "guest binary"))
    elif options.kernel == NO_KERNEL:
        kernel = ""
    elif options.kernel is not None:
        named = given_kernel(options.kernel, progress)
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
        raise UsageError(f"{options.kernel} is no Linux: it knows nothing of ACPI")


def readable_file(path: str | Path, what: str) -> Path:
    """The absolute path of the regular file `path`. Raises `UsageError`."""
    file = paths.expand(path)
    try:
        if not file.is_file():
            reason = (
                "it is a directory" if file.is_dir() else "it is no regular file" if file.exists() else "no such file"
            )
            raise UsageError(f"{what} {file} cannot be read: {reason}")
        with file.open("rb"):
            pass
    except OSError as error:
        raise UsageError(f"{what} {file} cannot be read: {error.strerror}") from None
    return file.absolute()


def writable_file(path: str | Path, what: str) -> None:
    """Check that the file `path` can be written or made; it is not touched. Raises `UsageError`."""
    file = paths.expand(path)
    if file.is_dir():
        reason = "it is a directory"
    elif not (file.exists() or file.parent.is_dir()):
        reason = f"there is no directory {file.parent}"
    elif not os.access(file if file.exists() else file.parent, os.W_OK):
        reason = "permission denied"
    else:
        return
    raise UsageError(f"{what} {file} cannot be written: {reason}")


def check_kernel(path: str | Path) -> Path:
    """The absolute path of the arm64 kernel that `path` names: a file, a Debian package, or a directory.

    Raises:
        UsageError: it is none.
    """
    return given_kernel(path).image


def given_kernel(path: str | Path, progress: Progress = no_progress) -> GivenKernel:
    """The arm64 kernel that `path` names, with what belongs to it. Raises `UsageError`: it is none."""
    from qemu_sdei.boot.image import KernelImage
    from qemu_sdei.host import given_kernels

    found = given_kernels.find(path, progress)
    KernelImage.load(found.image)
    return found


def _placed(profile: FirmwareProfile, plan: Plan) -> FirmwareProfile:
    """The functions that its rules name are those of the kernel that is booted. Raises `UsageError`."""
    from qemu_sdei.symbols import call_sites
    from qemu_sdei.symbols.sources import booted_file, load_image

    kernel = booted_file(plan.boot_json(None))
    found = None if kernel is None else load_image(kernel)
    if found is None:
        raise UsageError(
            f"firmware profile {profile.name} names functions, and this kernel's file has no symbols in it: set the "
            "profile when the guest runs, by `qemu-sdei firmware --profile FILE --symbols FILE`"
        )
    return call_sites.placed(profile, [found])


def guest_config(plan: Plan, name: str, initrd: Path | None, ram_path: Path | None = None) -> GuestConfig:
    """The `guest.json` for `plan`. Raises `UsageError` when what is to be booted cannot be."""
    plan = replace(plan, options=elected(plan.options))
    options = plan.options

    def absolute(path: str | Path | None) -> str | None:
        return None if path is None else str(paths.absolute(path))

    misbehaves: dict[str, Any] = {}
    if options.firmware is not None:
        from qemu_sdei.profiles import firmware_profile

        profile = firmware_profile.load(options.firmware)
        if any(rule.unplaced for rule in profile.rules):
            profile = _placed(profile, plan)
        misbehaves = profile.document() if profile.misbehaves else {}
    config = GuestConfig(
        name=name,
        nr_cpus=options.smp,
        cpu=options.cpu,
        ram_size=plan.ram_size,
        ram_path=absolute(ram_path),
        boot=plan.boot_json(initrd),
        virtualization=options.virtualization,
        hypervisor=options.hypervisor,
        smc=options.smc,
        stage2=options.stage2,
        events=absolute(options.events),
        sdei_version=options.sdei_version,
        sdei_vendor=options.sdei_vendor,
        sdei_signal=options.sdei_signal,
        sdei_slots=options.sdei_slots,
        sdei=options.sdei,
        firmware=misbehaves,
        services=tuple(str(paths.absolute(service)) for service in options.services),
        selection=tuple(options.selection),
        smccc_filter=tuple(options.smccc_filter),
        trace=absolute(options.trace),
        low_latency=options.low_latency,
    )
    switches = (options.sdei_version, options.sdei_vendor, options.sdei_signal, options.sdei_slots)
    if options.events is not None or switches != (None, None, None, None):
        from qemu_sdei.sdei.switches import description_of

        described = description_of(config)  # so that what is wrong is known now
        if plan.acpi:
            _check_announced(config, described, options.ras)
    return config


def _check_announced(config: GuestConfig, profile: MachineDescription, ras: bool) -> None:
    from qemu_sdei.backend.firmware.guest_interrupts import taken_by
    from qemu_sdei.boot.area import AcpiArea, Announced
    from qemu_sdei.boot.config import BootConfig

    announced = Announced.of(profile)
    sources = announced.sources
    lines = {f"source {each.name!r}": each.interrupt for each in sources} | {"[agdi]": announced.agdi_interrupt}
    for where, intid in lines.items():
        if intid is not None and (why := taken_by(intid)) is not None:
            raise UsageError(f"machine description {config.events}: {where}: {why}")
    AcpiArea.of(BootConfig.from_json(config.boot)).sources(sources)
    if ras and not sources:
        raise UsageError(
            f'machine description {config.events} has no error source: give an event acpi = "ghes" in it, '
            "or describe a [[source]], or leave out --ras"
        )


def monitor_image(plan: Plan) -> bytes:
    """The EL3 monitor for `plan`."""
    from qemu_sdei.monitor.image import patched
    from qemu_sdei.monitor.layout import window_base

    return patched(window_base(RAM_BASE, plan.ram_size), plan.options.smp)


def check_boot(config: GuestConfig) -> None:
    """Raise `UsageError` when kernel and initrd are not what they should be, or do not fit into the guest's memory and
    CPUs.
    """
    from qemu_sdei import boot
    from qemu_sdei.boot.config import BootConfig

    found = BootConfig.from_json(config.boot)
    boot.check(found)
    check_page_size(config.cpu, boot.page_size(found))
    uefi_boot.check_ram(found)
