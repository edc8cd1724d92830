"""A guest that boots by UEFI: what its options must be, which image it has, and disks that can be booted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from qemu_sdei import paths
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.boot.image import KernelImage
from qemu_sdei.boot.load_addresses import MIB, align_up
from qemu_sdei.errors import UsageError
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.uefi import image, partitions
from qemu_sdei.uefi.disk_image import DiskImage
from qemu_sdei.uefi.image_locks import in_use
from qemu_sdei.vm.options import NO_KERNEL, GuestOptions

_READ_ONLY: Final = {"readonly=on", "read-only=on", "snapshot=on"}
_OF_KERNEL: Final = {
    "series": "--series",
    "initrd": "--initrd",
    "command": "a command",
    "append": "--append",
    "files": "--file",
    "client": "--client",
    "root": "--root",
    "helper": "helper=True",
    "kdump": "--kdump",
}
"""Options that are for a kernel of ours, or for our own initramfs."""


def check_options(options: GuestOptions, *, flat: bool) -> None:
    """Check what is asked of UEFI together with all else. `flat`: a bare-metal guest. Raises `UsageError`."""
    if options.uefi is False:
        if options.uefi_vars is not None:
            raise UsageError("UEFI variables are kept for a guest that boots by UEFI: give --uefi, or leave them out")
        if options.kernel == NO_KERNEL:
            raise UsageError("without a kernel the guest boots by UEFI: --kernel none needs --uefi")
        return
    if not options.hypervisor:
        raise UsageError("UEFI is below a guest that runs as under a hypervisor: --uefi and --disk need --hypervisor")
    if not options.stage2:
        raise UsageError("UEFI is where stage 2 puts it: leave out --no-stage2, or --uefi")
    if flat:
        raise UsageError(f"{options.kernel} is entered at its first byte, UEFI boots none: leave out --uefi")
    if options.uefi_vars is not None and options.snapshots is not None:
        raise UsageError("a file of UEFI variables holds no snapshots: leave out --uefi-vars, or --snapshots")
    if options.kernel == NO_KERNEL:
        for name, word in _OF_KERNEL.items():
            if getattr(options, name):
                raise UsageError(f"UEFI boots what it finds, and no kernel of ours: leave out {word}, or give --kernel")


def check_ram(boot: BootConfig) -> None:
    """Raise `UsageError` if a guest that boots by UEFI has too little RAM for that, and for a kernel that it reads."""
    if boot.uefi is None:
        return
    need = image.LEAST_RAM
    if boot.kind == "linux":
        # It is read into memory, and then copied to where it runs; an initrd is unpacked besides.
        need += 2 * KernelImage.load(boot.kernel).image_size
        need += 3 * Path(boot.initrd).stat().st_size if boot.initrd else 0
    if boot.usable_size < need:
        memory = align_up(need + boot.ram_size - boot.usable_size, 32 * MIB) // MIB
        raise UsageError(
            f"UEFI needs {align_up(need, MIB) // MIB} MiB of memory for this, the guest has "
            f"{boot.usable_size // MIB} MiB: use --memory {memory}"
        )


def find_image(options: GuestOptions, progress: Progress = no_progress) -> str | None:
    """The path of the guest's UEFI image; None: it has none. Debian's may be downloaded. Raises `UsageError`."""
    if options.uefi is False:
        return None
    if options.uefi is True:
        from qemu_sdei.host.debian import DebianCache

        path = str(DebianCache(progress=progress).uefi())
    else:
        path = str(paths.absolute(options.uefi))
    image.load(path)
    return path


def hidden(path: str | None) -> int:
    """Bytes of RAM that the copy of the image `path` takes. Raises `UsageError`: it cannot be read any more."""
    return 0 if path is None else len(image.load(path))


def check_drives(options: GuestOptions) -> None:
    """Check that no other QEMU has the disks, and that UEFI finds something on one of them if it is to boot it.

    Raises `UsageError`.
    """
    found: list[bool | None] = []
    for text in options.drives:
        name, _, more = text.partition(",")
        words = more.split(",")
        path = paths.expand(name)
        if in_use(path, read_only=bool(_READ_ONLY & set(words))):
            raise UsageError(f"disk image {path} is in use by another QEMU: end that, or give a copy")
        if options.kernel == NO_KERNEL:
            kind = next((word.partition("=")[2] for word in words if word.startswith("format=")), None)
            if kind not in (None, "raw", "qcow2"):
                found.append(None)
                continue
            with DiskImage(path, qcow2=None if kind is None else kind == "qcow2") as disk:
                found.append(partitions.can_boot(disk))
    if found and not any(each is not False for each in found):
        first = paths.expand(options.drives[0].partition(",")[0])
        raise UsageError(
            f"disk image {first} has no EFI system partition, so UEFI boots nothing of it: give an image that was "
            "installed for UEFI, or a kernel by --kernel"
        )


def with_disks(options: GuestOptions, disks: Sequence[str | Path]) -> GuestOptions:
    """`options` for a guest that boots one of `disks` by UEFI; as they are without any. They come before its drives."""
    if not disks:
        return options
    return replace(
        options,
        uefi=True if options.uefi is False else options.uefi,
        kernel=NO_KERNEL if options.kernel is None else options.kernel,
        drives=[*map(str, disks), *options.drives],
    )
