"""Crash dumps: from a user's options to a capture kernel that fits, and a file for its vmcore.

A guest that is to be dumped has a disk more, which becomes the file (`devices.py`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qemu_sdei import paths
from qemu_sdei.boot import capture
from qemu_sdei.boot.image import MIB, KernelImage
from qemu_sdei.boot.load_addresses import BLOCK, plan
from qemu_sdei.config import RAM_BASE, parse_size
from qemu_sdei.errors import UsageError
from qemu_sdei.host import given_kernels, kernel_drivers, own_kernels
from qemu_sdei.host.cpu_models import check_page_size
from qemu_sdei.vm.devices import part_of
from qemu_sdei.vm.linux_kernel import LinuxKernel
from qemu_sdei.vm.options import SERIES, GuestOptions

if TYPE_CHECKING:
    from qemu_sdei.host.debian import DebianCache, KernelFiles

_MOST: Final = 512 * MIB
"""Bytes that are reserved where nobody says how much."""
_MORE: Final = 96 * MIB
"""Bytes that the first kernel needs beyond what any needs, to have so large an initramfs unpacked. Of these Debian's
kernels keep 64 MiB for DMA (CMA)."""
_FREE_NAMES: Final = 10_000
_DISK: Final = ("virtio_pci", "virtio_blk")


@dataclass(frozen=True)
class CaptureKernel:
    """What runs when the guest's kernel has panicked."""

    image: Path
    reserved: int
    """Bytes of RAM that are kept for it."""
    append: str
    """Its command line."""
    cpu: str = "max"
    """The guest's CPU model."""
    drivers: Path | None = None
    """Directory with its modules; None: what is needed is taken to be built in."""

    def files(self, busybox: bytes, nonce: str) -> dict[str, tuple[bytes, int]]:
        """What the first kernel's initramfs carries of it. Raises `UsageError`: it does not fit, too."""
        kernel = KernelImage.load(self.image)
        check_page_size(self.cpu, kernel.page_size)
        modules = kernel_drivers.load_order(self.drivers, _DISK) if self.drivers is not None else ()
        initrd = capture.own_initramfs(busybox, nonce, modules)
        capture.check_fit(kernel, len(initrd), self.reserved)
        return dict(capture.files(kernel, initrd, self.append))

    def check_first(self, kernel: str, initrd_size: int, usable: int) -> None:
        """Raise `UsageError` if the kernel that is booted has too little of the guest's `usable` bytes left."""
        try:
            plan(KernelImage.load(kernel), initrd_size, BLOCK, RAM_BASE, usable - self.reserved - _MORE)
        except UsageError:
            raise UsageError(
                f"{self.reserved // MIB} MiB are reserved for the capture kernel, and what is left of {usable // MIB} "
                "MiB is not enough for the kernel that is to crash: use more --memory, or less --crashkernel"
            ) from None


def settled(options: GuestOptions, flat: bool) -> GuestOptions:
    """`options` with all said that a crash dump needs; as they are without one.

    Raises:
        UsageError: they cannot be.
    """
    if options.kdump is False:
        for given, name in ((options.vmcore, "--vmcore"), (options.crashkernel, "--crashkernel")):
            if given is not None:
                raise UsageError(f"{name} is for a crash dump: give --kdump too")
        return options
    if flat or options.initrd is not None:
        reason = f"{options.kernel} is not a Linux kernel" if flat else "leave out --initrd"
        raise UsageError(f"a capture kernel is loaded by our own initramfs: {reason}")
    if options.kdump_cpus < 1:
        raise UsageError(f"{options.kdump_cpus} vCPUs for the capture kernel are not possible: give 1 or more")
    if re.search(r"(?:^|\s)crashkernel=", options.append):
        raise UsageError("crashkernel= is said by --kdump: leave it out of --append, and use --crashkernel")
    return replace(options, vmcore=_file(options.vmcore))


def reserved(options: GuestOptions, ram_size: int) -> int:
    """Bytes that are to be reserved, of a guest with `ram_size` bytes of RAM. Raises `UsageError`."""
    if options.crashkernel is None:
        return min(_MOST, ram_size // 2 // BLOCK * BLOCK)
    try:
        size = parse_size(options.crashkernel)
    except UsageError:
        size = 0
    if size < capture.SMALLEST or size % MIB:
        raise UsageError(f"--crashkernel {options.crashkernel!r} cannot be: give a size of 64M or more, such as 256M")
    if size > ram_size - capture.SMALLEST:
        raise UsageError(f"--crashkernel {options.crashkernel} does not fit into the guest's {ram_size // MIB} MiB")
    return size


def find(
    options: GuestOptions,
    cache: DebianCache,
    first: KernelFiles | LinuxKernel,
    append: str,
    ram_size: int,
) -> CaptureKernel:
    """The capture kernel that is wanted. `first`: the kernel that is booted, of Debian's or another one; `append`: its
    command line. Raises `UsageError`.
    """
    size = reserved(options, ram_size)
    drivers: Path | None
    if options.kdump is True and isinstance(first, LinuxKernel):
        image, drivers = first.image, first.drivers
    elif options.kdump is True or SERIES.fullmatch(str(options.kdump)):
        if own_kernels.is_own(str(options.kdump)):
            image, drivers = own_kernels.kernel(str(options.kdump)).image, None
        else:
            files = cache.kernel(str(options.kdump)) if options.kdump is not True else first
            assert not isinstance(files, LinuxKernel)
            image, drivers = files.image, cache.drivers(files)
    else:
        given = given_kernels.find(str(options.kdump))
        image, drivers = given.image, given.modules
    # reset_devices: drivers find devices that nobody has put to rest. panic=-1: the end of it is the end.
    words = f"{append} maxcpus={options.kdump_cpus} reset_devices panic=-1"
    return CaptureKernel(image, size, words, options.cpu, drivers)


def _file(vmcore: str | Path | None) -> Path:
    """Where the vmcore is to be written. Raises `UsageError`."""
    if vmcore is None:
        names = ("vmcore" if n == 1 else f"vmcore-{n}" for n in range(1, _FREE_NAMES))
        free = (paths.absolute(name) for name in names)
        path = next((path for path in free if not (path.exists() or part_of(path).exists())), None)
        if path is None:
            raise UsageError("there is no free name for a vmcore here: give --vmcore FILE")
    else:
        path = paths.absolute(vmcore)
    part = part_of(path)
    if path.is_dir():
        reason = "it is a directory"
    elif path.exists() and not path.is_file():
        reason = "it is not a regular file"
    elif not path.parent.is_dir():
        reason = f"there is no directory {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        reason = f"{path.parent} is not writable"
    elif part.exists():
        reason = f"{part} is there, which another guest may be writing: delete it if none is"
    else:
        return path
    raise UsageError(f"vmcore {path} cannot be written: {reason}")
