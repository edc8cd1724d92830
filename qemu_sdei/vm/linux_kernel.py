"""Which Linux a guest boots: a file, one of Debian's, or one that was built here; and what belongs to it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_sdei.errors import UsageError
from qemu_sdei.host import own_kernels
from qemu_sdei.host.progress import Progress
from qemu_sdei.vm.options import GuestOptions

if TYPE_CHECKING:
    from qemu_sdei.host.debian import DebianCache, KernelFiles


@dataclass(frozen=True)
class LinuxKernel:
    """A kernel to boot."""

    image: Path
    drivers: Path | None = None
    """Directory with its modules; None: what is needed is taken to be built in."""
    client: Path | None = None
    """The client module that was built for it."""
    debian: KernelFiles | None = None
    """Set when it is one of Debian's."""


def find(
    options: GuestOptions,
    file: str | None,
    cache: DebianCache,
    *,
    drivers: bool,
    channel: bool = False,
    progress: Progress,
) -> LinuxKernel:
    """The kernel that `options` ask for; Debian's may be downloaded.

    Args:
        file: the kernel's file, where the user named one.
        drivers: our own initramfs is to load modules.
        channel: it is to load those of the agent's card, if they can be had.

    Raises:
        UsageError: it is not here and cannot be had, or it has not what the guest is to have.
    """
    if file is not None:
        if options.client is True:
            raise UsageError(
                "the client module is built for Debian's kernels: with --kernel name its file, --client FILE"
            )
        return LinuxKernel(Path(file))
    if options.series is not None and options.series.startswith(own_kernels.PREFIX):
        if options.net or options.forwards:
            raise UsageError(f"kernel {options.series} is built without a network: leave out --net and --forward")
        own = own_kernels.kernel(options.series)
        client = None
        if options.client is True:
            from qemu_sdei.host import client_module

            client = client_module.build_own(own, progress)
        return LinuxKernel(own.image, client=client)
    files = cache.kernel(options.series)
    folder = cache.drivers(files) if drivers else None
    if channel and folder is None:
        with contextlib.suppress(UsageError):  # without them the guest does as a kernel without the driver
            folder = cache.drivers(files)
    client = None
    if options.client is True:
        from qemu_sdei.host import client_module

        client = client_module.build(cache, files, progress)
    return LinuxKernel(files.image, folder, client, files)
