"""Which Linux a guest boots: one that the user named, one of Debian's, or one that was built here; and what belongs to
it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_sdei import paths
from qemu_sdei.boot.image import KernelImage
from qemu_sdei.errors import UsageError
from qemu_sdei.host import kernel_drivers, own_kernels
from qemu_sdei.host.given_kernels import GivenKernel, release_of
from qemu_sdei.host.kernel_config import KernelConfig
from qemu_sdei.host.progress import Progress
from qemu_sdei.vm import kernel_needs
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
    vmlinux: Path | None = None
    """The ELF file with its symbols, if that is known."""
    config: Path | None = None
    """Its configuration, if that is known."""
    remarks: tuple[str, ...] = ()
    """What the user should know of it, in sentences."""


def find(
    options: GuestOptions,
    given: GivenKernel | None,
    cache: DebianCache,
    *,
    drivers: bool,
    channel: bool = False,
    progress: Progress,
) -> LinuxKernel:
    """The kernel that `options` ask for; Debian's may be downloaded.

    Args:
        given: the kernel that the user named, where that was done.
        drivers: our own initramfs is to load modules.
        channel: it is to load those of the agent's card, if they can be had.

    Raises:
        UsageError: it is not here and cannot be had, or it has not what the guest is to have.
    """
    modules = _modules(options)
    if given is not None:
        found = _given(options, given, cache, progress)
    elif options.series is not None and options.series.startswith(own_kernels.PREFIX):
        found = _own(options, progress)
    else:
        found = _debian(options, cache, progress, drivers=drivers and modules is None, channel=channel)
    if modules is not None:
        found = replace(found, drivers=modules)
    _check_client(options, found)
    return replace(found, remarks=_checked(options, found, initrd=options.initrd is not None))


def _given(options: GuestOptions, given: GivenKernel, cache: DebianCache, progress: Progress) -> LinuxKernel:
    client = None
    if options.client is True:
        from qemu_sdei.host import client_module

        if given.tree is not None:
            client = client_module.build_tree(cache.directory, given.tree, progress)
        elif given.package is not None:
            client = client_module.build(cache, _package(given), progress)
        else:
            raise UsageError(
                "the client module is built for Debian's kernels, and from a build tree: give the tree or the package "
                "as --kernel, or name the module's file, --client FILE"
            )
    drivers = None if options.initrd is not None else given.modules
    return LinuxKernel(given.image, drivers, client, config=given.config, vmlinux=given.vmlinux)


def _package(given: GivenKernel) -> KernelFiles:
    from qemu_sdei.host.debian import KernelFiles

    assert given.package is not None
    package, version = given.package
    release = release_of(given.image)
    if release is None:
        raise UsageError(f"{given.image} does not say which kernel it is: the client module needs that")
    return KernelFiles("", release, package, version, given.image, given.config)


def _own(options: GuestOptions, progress: Progress) -> LinuxKernel:
    assert options.series is not None
    if options.net or options.forwards:
        raise UsageError(f"kernel {options.series} is built without a network: leave out --net and --forward")
    own = own_kernels.kernel(options.series)
    client = None
    if options.client is True:
        from qemu_sdei.host import client_module

        client = client_module.build_own(own, progress)
    return LinuxKernel(own.image, client=client, config=own.directory / "config", vmlinux=own.vmlinux)


def _debian(
    options: GuestOptions, cache: DebianCache, progress: Progress, *, drivers: bool, channel: bool
) -> LinuxKernel:
    files = cache.kernel(options.series)
    folder = cache.drivers(files) if drivers else None
    if channel and folder is None:
        with contextlib.suppress(UsageError):  # without them the guest does as a kernel without the driver
            folder = cache.drivers(files)
    client = None
    if options.client is True:
        from qemu_sdei.host import client_module

        client = client_module.build(cache, files, progress)
    return LinuxKernel(files.image, folder, client, files, config=files.config)


def _modules(options: GuestOptions) -> Path | None:
    """The directory that --modules names. Raises `UsageError`."""
    if options.modules is None:
        return None
    folder = paths.absolute(options.modules)
    if not folder.is_dir():
        raise UsageError(f"--modules {folder}: there is no such directory")
    if options.initrd is not None:
        raise UsageError("modules are loaded by our own initramfs: leave out --initrd, or --modules")
    if not kernel_drivers.modules_in(folder):
        raise UsageError(f"--modules {folder}: there is no kernel module (.ko) in it")
    return folder


def _check_client(options: GuestOptions, kernel: LinuxKernel) -> None:
    """A client module that the user named is of the kernel's release. Raises `UsageError`."""
    if isinstance(options.client, bool):
        return
    from qemu_sdei.host.client_module import vermagic

    path = paths.absolute(options.client)
    built_for, release = vermagic(path), release_of(kernel.image)
    if not built_for:
        raise UsageError(
            f"client module {path} is not a kernel module: it says nothing of the kernel that it is built for"
        )
    if release is not None and built_for != release:
        raise UsageError(
            f"client module {path} is built for kernel {built_for}, and this is {release}: build it for this one"
        )


def _checked(options: GuestOptions, kernel: LinuxKernel, *, initrd: bool) -> tuple[str, ...]:
    """What is to be told of the kernel's configuration. Raises `UsageError`."""
    if kernel.config is not None:
        config = KernelConfig.read(kernel.config)
    else:
        config = KernelConfig.inside(KernelImage.load(kernel.image).data, str(kernel.image))
    if config is None:
        return ()
    modules = None if kernel.drivers is None else kernel_drivers.modules_in(kernel.drivers)
    return tuple(kernel_needs.check(options, config, own_initramfs=not initrd, modules=modules))
