"""What a user may ask of a guest: plain data (`plan.py` checks it and fills in defaults).

Each option says by its metadata how far it goes when its guest leaves; `travelling.py` does what is said here.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, InitVar, dataclass, field, fields, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from qemu_sdei import paths
from qemu_sdei.host import kernel_packages
from qemu_sdei.smccc import selection
from qemu_sdei.vm.option_types import check_types

BUILTIN: Final = "builtin:"
FLAT: Final = "flat:"
NO_KERNEL: Final = "none"
"""As `GuestOptions.kernel`: UEFI boots what it finds."""
DIE_WITH_OWNER: Final = "QEMU_SDEI_DIE_WITH_OWNER"
"""Environment variable with the default of `GuestOptions.die_with_owner`."""
END: Final = "end"
CONTINUE: Final = "continue"
"""What `GuestOptions.on_panic` can be."""
SMC: Final = ("served", "unsupported", "undefined")
"""What `GuestOptions.smc` can be."""
SERIES: Final = re.compile(rf"own-\d{{1,3}}\.\d{{1,3}}|{kernel_packages.SERIES.pattern}")
"""A series of Debian's kernels, or of those that were built here (`qemu_sdei.host.own_kernels`)."""


class Goes(Enum):
    """How far an option goes with its guest."""

    EVERYWHERE = 0
    """To another host, and into the directory that the guest is saved in."""
    SAVED = 1
    """Into that directory only: another host has its own, or is told in another form."""
    NOWHERE = 2
    """It was for one boot, or for one run."""


@dataclass(frozen=True)
class Travel:
    """Metadata of an option. Its type says what a stranger may set it to; this says what beyond that."""

    goes: Goes
    roots: Callable[[Any], Any] | None = None
    """For options that name files: the same value, from whichever directory it is looked at. A stranger's value must be
    so from the start.
    """
    may_be: Callable[[Any], bool] | None = None
    """Whether a value from outside can be taken."""


def _option(
    goes: Goes, *, roots: Callable[[Any], Any] | None = None, may_be: Callable[[Any], bool] | None = None
) -> Mapping[str, Travel]:
    """Metadata for `dataclasses.field`."""
    return MappingProxyType({"travel": Travel(goes, roots, may_be)})


def travel(option: Field[Any]) -> Travel:
    """How far an option goes. Raises `TypeError`: its declaration does not say so."""
    found = option.metadata.get("travel")
    if not isinstance(found, Travel):
        raise TypeError(f"the option {option.name} does not say how far it goes with its guest: see `Travel`")
    return found


def _path(value: str | Path | None) -> str | None:
    return None if value is None else str(paths.absolute(value))


def _kernel(value: str | Path | None) -> str | None:
    text = str(value)
    if text.startswith(BUILTIN) or text == NO_KERNEL:
        return text
    flat = FLAT if text.startswith(FLAT) else ""
    return None if value is None else f"{flat}{_path(text.removeprefix(flat))}"


def _kdump(value: bool | str | Path) -> bool | str | None:
    return value if isinstance(value, bool) else str(value) if SERIES.fullmatch(str(value)) else _path(value)


def _client(value: bool | str | Path) -> bool | str | None:
    return value if isinstance(value, bool) else _path(value)


def _files(value: Mapping[str, Path]) -> dict[str, Path]:
    return {name: Path(file).absolute() for name, file in value.items()}


def _paths(values: Sequence[str | Path]) -> tuple[str | None, ...]:
    return tuple(map(_path, values))


def _before(separator: str) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """Of texts that begin with a path."""

    def rooted(text: str) -> str:
        name, found, rest = text.partition(separator)
        return f"{_path(name)}{found}{rest}"

    return lambda texts: tuple(map(rooted, texts))


def _seconds(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _positive(value: int) -> bool:
    return value > 0


_EVERYWHERE: Final = _option(Goes.EVERYWHERE)
_SAVED: Final = _option(Goes.SAVED)
_NOWHERE: Final = _option(Goes.NOWHERE)


@dataclass(frozen=True, kw_only=True)
class GuestOptions:
    """Options of a guest. Each has a default: together they are Debian's stock kernel on 2 vCPUs.

    Raises:
        UsageError: a value has another type than the field.
    """

    kernel: str | Path | None = field(default=None, metadata=_option(Goes.SAVED, roots=_kernel))
    """arm64 Image (also compressed), a Debian package with one, a build tree, `builtin:NAME` for a bare-metal guest of
    ours, `flat:FILE` for a binary that is entered at its first byte, "none" for what `uefi` finds by itself: a disk, or
    its shell; None: Debian's stock kernel.
    """
    series: str | None = field(default=None, metadata=_SAVED)
    """Which of Debian's kernels: "6.1" or "6.12"; a flavour, "6.12-rt", "6.12-cloud" or "6.12-16k"; of another suite,
    "7.3/trixie-backports"; None for the default one. "own-7.3": the kernel that `scripts/crash-kernel` built. Only
    without `kernel`.
    """
    initrd: str | Path | None = field(default=None, metadata=_option(Goes.NOWHERE, roots=_path))
    """None: our own initramfs with Debian's busybox; with it `Guest.run` and `command` work."""
    busybox: str | Path | None = field(default=None, metadata=_option(Goes.SAVED, roots=_path))
    """Static arm64 busybox for our own initramfs; None: Debian's."""
    boot: Literal["auto", "acpi", "dt"] = field(default="auto", metadata=_EVERYWHERE)
    """What describes the machine to Linux: "dt", "acpi", or "auto": ACPI if `ras` or `uefi`, else a device tree."""
    uefi: bool | str | Path = field(default=False, metadata=_option(Goes.SAVED, roots=_client))
    """UEFI is the guest's own firmware, and boots the kernel: True: Debian's (EDK II), or an image for QEMU's arm64
    `virt` machine. Only with `hypervisor`. It boots by ACPI then, unless `boot` is "dt".
    """
    uefi_vars: str | Path | None = field(default=None, metadata=_option(Goes.EVERYWHERE, roots=_path))
    """File that keeps UEFI's variables, made if it is not there; None: they live as long as QEMU does."""
    ras: bool = field(default=False, metadata=_EVERYWHERE)
    """True: firmware reports hardware errors to the guest. The guest then boots by ACPI, whose HEST names the events
    for them.
    """
    helper: bool = field(default=False, metadata=_EVERYWHERE)
    """Our own initramfs takes commands from the host beside its console (by a serial card on the PCI bus), and has
    `victim`: what `qemu-sdei ras inject` needs to find a process's pages, and to look what became of them.
    """
    channel: bool = field(default=False, metadata=_EVERYWHERE)
    """Our own initramfs has an agent that runs commands by a virtio serial card, their bytes apart from the console:
    what `qemu-sdei exec` and `Guest.exec` need, and how `run -- COMMAND` has the command's own streams. Without effect
    where there is no initramfs of ours, and with `root` or `kdump`.
    """
    apart: bool = field(default=False, metadata=_NOWHERE)
    """The `command` has its streams by that channel, and not on the console. Who starts the guest connects to it:
    `qemu_sdei.guest.exec_session`.
    """
    acpi_tables: Sequence[str | Path] = field(default=(), metadata=_option(Goes.NOWHERE, roots=_paths))
    """Files with ACPI tables of the user's own, one each (binary), for a boot by ACPI. The guest's configuration has
    what was in them.
    """
    boot_error: str | Path | None = field(default=None, metadata=_option(Goes.NOWHERE, roots=_path))
    """Error records of the boot before the first one, which a BERT tells that one of: bytes, hexadecimal, base64 or
    JSON, as `qemu-sdei cper decode` takes them.
    """
    append: str = field(default="", metadata=_SAVED)
    """Added to the kernel command line; the last word of a name wins in Linux."""
    smp: int = field(default=2, metadata=_EVERYWHERE)
    """Number of vCPUs, 1 to 512."""
    topology: str = field(default="", metadata=_EVERYWHERE)
    """Topology of the vCPUs, in the words of QEMU's `-smp`: "sockets=2,cores=3,threads=1". "": QEMU chooses."""
    memory: str | int = field(default="1G", metadata=_SAVED)
    """RAM: as QEMU's `-m` ("512M", "2G"), or an int in bytes."""
    pad_memory: bool | None = field(default=None, metadata=_SAVED)
    """True: add 8 KiB of RAM, hidden from the guest, if `memory` is a multiple of 256 KiB. QEMU before 9.0 loses pages
    of RAM of such a size in a live migration, and only a comparison of RAM repairs them. RAM of another size needs 0.7
    s more for each GiB and vCPU in a migration. None: True if RAM times vCPUs is at most 2 GiB, and `memory` is no int.
    """
    cpu: str = field(default="cortex-a72", metadata=_EVERYWHERE)
    """CPU model, as QEMU's `-cpu` names it."""
    command: Sequence[str] | None = field(default=None, metadata=_NOWHERE)
    """Run this in the guest in place of a shell, then power off."""
    files: Mapping[str, Path] = field(default_factory=dict, metadata=_option(Goes.NOWHERE, roots=_files))
    """Files of the host that our initramfs carries too: path in the guest → path here."""
    client: bool | str | Path = field(default=False, metadata=_option(Goes.NOWHERE, roots=_client))
    """Have the SDEI client module at hand for `Guest.sdei_client`: built for Debian's kernel or from the kernel's build
    tree, or this file.
    """
    modules: str | Path | None = field(default=None, metadata=_option(Goes.NOWHERE, roots=_path))
    """Directory with the kernel's modules, at any depth; our own initramfs loads those that disks, shares, network and
    channel need. None: those of the package or the build tree that the kernel comes from.
    """
    drives: Sequence[str] = field(default=(), metadata=_option(Goes.EVERYWHERE, roots=_before(",")))
    """Disks, each as `FILE[,OPTIONS]` (of QEMU's -drive): /dev/vda and so on in the guest."""
    snapshots: str | Path | None = field(default=None, metadata=_option(Goes.NOWHERE, roots=_path))
    """qcow2 image for `Guest.snapshot`, which the guest does not see; made if it is not there. None: they are written
    to the first disk of `drives` that is one.
    """
    shares: Sequence[str] = field(default=(), metadata=_option(Goes.EVERYWHERE, roots=_before(":")))
    """Directories of the host, each as `DIR[:TAG]`, by virtio-9p; our own initramfs mounts them on /mnt/TAG."""
    net: bool = field(default=False, metadata=_EVERYWHERE)
    """A network card on QEMU's user-mode network; our own initramfs sets it up."""
    forwards: Sequence[str] = field(default=(), metadata=_EVERYWHERE)
    """TCP ports of 127.0.0.1 here that lead into the guest, each as `HOST:GUEST`; with them there is a network."""
    root: str | None = field(default=None, metadata=_EVERYWHERE)
    """Device that our own initramfs mounts as root file system, to start the init there, such as "/dev/vda1"."""
    virtualization: bool = field(default=False, metadata=_EVERYWHERE)
    """The guest has EL2 for its own use; Linux then starts there."""
    hypervisor: bool = field(default=False, metadata=_EVERYWHERE)
    """The guest runs as under a hypervisor such as KVM: at EL1 above an EL2 that is ours, and calls by HVC."""
    smc: Literal["served", "unsupported", "undefined"] = field(default="served", metadata=_EVERYWHERE)
    """What an SMC of such a guest does: "served": the same as an HVC; "unsupported": it returns NOT_SUPPORTED;
    "undefined": it raises an exception. Only with `hypervisor`.
    """
    stage2: bool = field(default=True, metadata=_EVERYWHERE)
    """True: stage 2 page tables keep the CPUs of such a guest out of the firmware's memory. Work that uses many
    different pages is slower with them.
    """
    sdei: bool = field(default=True, metadata=_EVERYWHERE)
    """False: firmware without SDEI. Its function ids are NOT_SUPPORTED, and nothing announces it."""
    name: str | None = field(default=None, metadata=_NOWHERE)
    """Name for `qemu-sdei inject NAME` and the like; None: the first free of guest, guest-2, ..."""
    events: str | Path | None = field(default=None, metadata=_option(Goes.SAVED, roots=_path))
    """The events file: TOML with the machine's SDEI events."""
    profile: InitVar[str | Path | None] = None
    """The former name of `events`; it warns, and goes with the next release."""
    sdei_version: str | None = field(default=None, metadata=_EVERYWHERE)
    """What SDEI_VERSION answers, such as "1.0". This and the next three: None for what the events file says."""
    sdei_vendor: int | None = field(default=None, metadata=_EVERYWHERE)
    """Low 32 bits of SDEI_VERSION."""
    sdei_signal: str | None = field(default=None, metadata=_EVERYWHERE)
    """"pend" or "invalid": what becomes of EVENT_SIGNAL to a vCPU that could not take the event at once."""
    sdei_slots: tuple[int, int] | None = field(default=None, metadata=_EVERYWHERE)
    """How many PPIs and SPIs the guest may bind to events."""
    firmware: str | Path | None = field(default=None, metadata=_NOWHERE)
    """A firmware profile, by which the firmware misbehaves on purpose: the name of one that comes with the program, or
    a TOML file (a path with a `/`, or that ends in `.toml`). None: "spec", it does nothing wrong. When the guest
    leaves, its state has the rules.
    """
    services: Sequence[str | Path] = field(default=(), metadata=_option(Goes.EVERYWHERE, roots=_paths))
    """Python files with SMCCC services of the user's own."""
    selection: Sequence[str] = field(default=(), metadata=_EVERYWHERE)
    """Which built-in services the guest finds: bitmap registers of KVM's and their features, such as
    ("std=sdei", "std-hyp="); all that are there of a register which is not named. SDEI that is left out is also not
    announced, as with `sdei=False`.
    """
    smccc_filter: Sequence[str] = field(default=(), metadata=_EVERYWHERE)
    """What becomes of calls before a service sees them: KVM's SMCCC filter, such as ("deny:0x84000050+4",
    "forward:0xc6000001"). What is forwarded goes to `services`.
    """
    trace: str | Path | None = field(default=None, metadata=_option(Goes.NOWHERE, roots=_path))
    """Write a trace record per firmware call there."""
    memory_path: str | Path | None = field(default=None, metadata=_option(Goes.SAVED, roots=_path))
    """Directory for the RAM file; None: RAM without any file."""
    qemu: str | Path | None = field(default=None, metadata=_option(Goes.SAVED, roots=_path))
    """The QEMU to start; None: qemu-system-aarch64 on PATH."""
    qemu_args: Sequence[str] = field(default=(), metadata=_EVERYWHERE)
    """Added to QEMU's command line."""
    gdb: int | None = field(default=None, metadata=_NOWHERE)
    """TCP port of 127.0.0.1 for QEMU's gdb server. A Linux kernel then gets `nokaslr`, so that its addresses are those
    of its vmlinux.
    """
    reboot: bool | None = field(default=None, metadata=_SAVED)
    """Whether a reset starts the guest again; None: only without `command`."""
    paused: bool = field(default=False, metadata=_NOWHERE)
    """True: the vCPUs do not run before the guest is resumed (`Guest.wait_resumed`). Until then registers that select
    services can be written.
    """
    on_panic: Literal["end", "continue"] = field(default="end", metadata=_EVERYWHERE)
    """What happens when the guest's kernel panics. "end": every wait raises `GuestPanicError`. "continue": the waits go
    on, for what comes after the panic, such as a capture kernel.
    """
    kdump: bool | str | Path = field(default=False, metadata=_option(Goes.SAVED, roots=_kdump))
    """Load a capture kernel, which runs when the kernel panics. True: the same kernel; else a file, or a series as in
    `series`, such as "6.12". It copies the memory of the crashed kernel to `vmcore`, and powers off
    (`Guest.wait_vmcore`). A panic is then handled as with `on_panic="continue"`.
    """
    crashkernel: str | None = field(default=None, metadata=_SAVED)
    """Memory for the capture kernel, as "256M"; None: half of RAM, 512 MiB at most."""
    kdump_cpus: int = field(default=1, metadata=_option(Goes.SAVED, may_be=_positive))
    """How many vCPUs the capture kernel brings up."""
    kdump_timeout: float = field(default=120.0, metadata=_option(Goes.SAVED, may_be=_seconds))
    """Seconds that each stage of a crash dump may take; while memory is copied, without any progress."""
    vmcore: str | Path | None = field(default=None, metadata=_option(Goes.SAVED, roots=_path))
    """The file for the dump; None: the first free one of vmcore, vmcore-2, ... in the working directory."""
    die_with_owner: bool | None = field(default=None, metadata=_SAVED)
    """True: the guest ends when its supervisor process is killed (`kill -9`). False: it runs on, and another process
    can take it over. None: as the environment variable QEMU_SDEI_DIE_WITH_OWNER says, else True for a guest of a Python
    prompt or a notebook, and False for each other one.
    """
    low_latency: bool = field(default=False, metadata=_NOWHERE)
    """True: keep the host's cores awake while the guest is there (`/dev/cpu_dma_latency` at 0). An event reaches an
    idle guest sooner. No core of the host sleeps meanwhile, which costs electricity. Needs the right to write
    there.
    """
    boot_timeout: float = field(default=60.0, metadata=_option(Goes.EVERYWHERE, may_be=_seconds))
    """Seconds without console output during a boot after which a wait gives up."""
    stall_timeout: InitVar[float | None] = None
    """The former name of `boot_timeout`; it warns, and goes with the next release."""
    start_timeout: float = field(default=30.0, metadata=_option(Goes.SAVED, may_be=_seconds))
    """Seconds for which QEMU or the backend, while starting, may neither answer nor make progress (use CPU time, or
    wait for a CPU or a disk). With progress the limit is ten times that; a stopped process has 5 s.
    """

    @property
    def has_el2(self) -> bool:
        """True: the machine's CPUs have EL2, used by the guest or by our hypervisor."""
        return self.virtualization or self.hypervisor

    @property
    def goes_on(self) -> bool:
        """True: a wait goes on after a panic, because another kernel may follow."""
        return self.on_panic == CONTINUE or self.kdump is not False

    def __post_init__(self, profile: str | Path | None, stall_timeout: float | None) -> None:
        if stall_timeout is not None:
            warnings.warn("GuestOptions(stall_timeout=...) is boot_timeout=... now", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "boot_timeout", stall_timeout)
        check_types(self)
        if self.selection and "sdei" not in selection.parse(self.selection).get("std", ("sdei",)):
            object.__setattr__(self, "sdei", False)
        if profile is not None:
            warnings.warn("GuestOptions(profile=...) is events=... now", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "events", profile)


def rooted(options: GuestOptions) -> GuestOptions:
    """`options` as they mean the same in any working directory."""
    found = {field.name: travel(field).roots for field in fields(options)}
    return replace(
        options, **{name: roots(getattr(options, name)) for name, roots in found.items() if roots is not None}
    )
