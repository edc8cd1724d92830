"""What a user may ask of a guest: plain data (`plan.py` checks it and fills in defaults)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from qemu_sdei import paths

BUILTIN: Final = "builtin:"
FLAT: Final = "flat:"
DIE_WITH_OWNER: Final = "QEMU_SDEI_DIE_WITH_OWNER"
"""Environment variable with the default of `GuestOptions.die_with_owner`."""
END: Final = "end"
CONTINUE: Final = "continue"
"""What `GuestOptions.on_panic` can be."""


@dataclass(frozen=True, kw_only=True)
class GuestOptions:
    """A guest as a user describes it. Everything has a default: Debian's stock kernel on 2 vCPUs."""

    kernel: str | Path | None = None
    """arm64 Image (also compressed), `builtin:NAME` for a bare-metal guest of ours, `flat:FILE` for a binary that is
    entered at its first byte; None: Debian's stock kernel.
    """
    series: str | None = None
    """Which of Debian's kernels: "6.1" or "6.12"; None for the default one. Only without `kernel`."""
    initrd: str | Path | None = None
    """None: our own initramfs with Debian's busybox; with it `Guest.run` and `command` work."""
    busybox: str | Path | None = None
    """Static arm64 busybox for our own initramfs; None: Debian's."""
    boot: Literal["auto", "acpi", "dt"] = "auto"
    """What describes the machine to Linux: "dt", "acpi", or "auto": ACPI if `ras`, else a device tree."""
    ras: bool = False
    """The guest is to take hardware errors from its firmware: needs ACPI, whose HEST names the events for them."""
    append: str = ""
    """Added to the kernel command line; the last word of a name wins in Linux."""
    smp: int = 2
    topology: str = ""
    """How the vCPUs lie, in the words of QEMU's `-smp`: "sockets=2,cores=3,threads=1". "" leaves it to QEMU."""
    memory: str | int = "1G"
    """RAM: as QEMU's `-m` ("512M", "2G"), or an int in bytes."""
    pad_memory: bool | None = None
    """8 KiB more RAM, hidden from the guest, if `memory` is a multiple of 256 KiB: QEMU before 9.0 loses pages of RAM
    of such a size in live migrations, which only comparing RAM makes good. To send RAM of another size takes it 0.7 s
    more for each GiB and vCPU. None: if RAM times vCPUs is no more than 2 GiB, and `memory` is no int.
    """
    cpu: str = "cortex-a72"
    command: Sequence[str] | None = None
    """Run this in the guest in place of a shell, then power off."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files of the host that our initramfs carries too: path in the guest → path here."""
    client: bool | str | Path = False
    """Have the SDEI client module at hand for `Guest.sdei_client`: built for Debian's kernel, or this file."""
    drives: Sequence[str] = ()
    """Disks, each as `FILE[,OPTIONS]` (of QEMU's -drive): /dev/vda and so on in the guest."""
    snapshots: str | Path | None = None
    """qcow2 image for `Guest.snapshot`, which the guest does not see; made if it is not there. None: they are written
    to the first disk of `drives` that is one.
    """
    shares: Sequence[str] = ()
    """Directories of the host, each as `DIR[:TAG]`, by virtio-9p; our own initramfs mounts them on /mnt/TAG."""
    net: bool = False
    """A network card on QEMU's user-mode network; our own initramfs sets it up."""
    forwards: Sequence[str] = ()
    """TCP ports of 127.0.0.1 here that lead into the guest, each as `HOST:GUEST`; with them there is a network."""
    root: str | None = None
    """Device that our own initramfs mounts as root file system, to start the init there, such as "/dev/vda1"."""
    virtualization: bool = False
    """The guest has EL2 for its own use; Linux then starts there."""
    sdei: bool = True
    """False: firmware without SDEI. Its function ids are NOT_SUPPORTED, and nothing announces it."""
    name: str | None = None
    """Name for `qemu-sdei inject NAME` and the like; None: the first free of guest, guest-2, ..."""
    profile: str | Path | None = None
    """TOML file with the machine's SDEI events."""
    sdei_version: str | None = None
    """What SDEI_VERSION answers, such as "1.0". This and the next three: None for what `profile` says."""
    sdei_vendor: int | None = None
    """Low 32 bits of SDEI_VERSION."""
    sdei_signal: str | None = None
    """"pend" or "invalid": what becomes of EVENT_SIGNAL to a vCPU that could not take the event at once."""
    sdei_slots: tuple[int, int] | None = None
    """How many PPIs and SPIs the guest may bind to events."""
    services: Sequence[str | Path] = ()
    """Python files with SMCCC services of the user's own."""
    trace: str | Path | None = None
    """Write a trace record per firmware call there."""
    memory_path: str | Path | None = None
    """Directory for the RAM file; None: RAM without any file."""
    qemu: str | Path | None = None
    qemu_args: Sequence[str] = ()
    """Added to QEMU's command line."""
    reboot: bool | None = None
    """Whether a reset starts the guest again; None: only without `command`."""
    on_panic: Literal["end", "continue"] = "end"
    """When the guest's kernel panics: "end" raises `GuestPanicError` from whatever waits for something else;
    "continue" waits for what comes after it, such as a capture kernel, whose boot is one of its own.
    """
    die_with_owner: bool | None = None
    """Whether `kill -9` of the process that runs the guest ends the guest too; None: as the environment variable
    QEMU_SDEI_DIE_WITH_OWNER says, and without it the guest goes on, for another process to take over.
    """
    stall_timeout: float = 60.0
    """Seconds of silent console while booting after which a wait gives up."""
    start_timeout: float = 30.0
    """Seconds for which QEMU or the backend, which are to come up, may neither answer nor get on (use CPU time, or wait
    for a CPU or a disk). One that gets on has ten times that; one that is stopped has 5 s.
    """


def rooted(options: GuestOptions) -> GuestOptions:
    """`options` as they mean the same in any working directory."""

    def path(value: str | Path | None) -> str | None:
        return None if value is None else str(paths.absolute(value))

    def kernel(value: str | Path | None) -> str | None:
        text = str(value)
        if text.startswith(BUILTIN):
            return text
        flat = FLAT if text.startswith(FLAT) else ""
        return None if value is None else f"{flat}{path(text.removeprefix(flat))}"

    def first(text: str, separator: str) -> str:
        name, found, rest = text.partition(separator)
        return f"{path(name)}{found}{rest}"

    return replace(
        options,
        kernel=kernel(options.kernel),
        initrd=path(options.initrd),
        busybox=path(options.busybox),
        files={name: Path(file).absolute() for name, file in options.files.items()},
        client=options.client if isinstance(options.client, bool) else str(path(options.client)),
        drives=tuple(first(text, ",") for text in options.drives),
        shares=tuple(first(text, ":") for text in options.shares),
        snapshots=path(options.snapshots),
        profile=path(options.profile),
        services=tuple(str(path(service)) for service in options.services),
        trace=path(options.trace),
        memory_path=path(options.memory_path),
        qemu=path(options.qemu),
    )
