"""What a kernel must have for what was asked of its guest, by its configuration: said before the boot, because a kernel
without a driver is silent about it, or waits for a disk that never comes.

A row names options of which one must be set. One that is a module helps only if it can be loaded before it is needed:
by our own initramfs, from the kernel's modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.host.kernel_config import KernelConfig
from qemu_sdei.vm.options import GuestOptions


@dataclass(frozen=True)
class Need:
    """One row."""

    asked: Callable[[GuestOptions], bool]
    """Whether the user's options want it."""
    word: str
    """What the user said, such as "--drive"."""
    option: str
    """The kernel's option, without "CONFIG_"."""
    module: str = ""
    """Its module, where our own initramfs can load that; "": it must be built in."""
    required: bool = True
    """Whether nothing of what was asked works without it; else it is only told."""
    effect: str = ""
    """What is lost without it, in a few words."""


def _disks(options: GuestOptions) -> bool:
    return bool(options.drives)


def _net(options: GuestOptions) -> bool:
    return bool(options.net or options.forwards)


def _shares(options: GuestOptions) -> bool:
    return bool(options.shares)


def _acpi(options: GuestOptions) -> bool:
    return options.boot == "acpi" or options.ras or options.uefi is not False


def _client(options: GuestOptions) -> bool:
    return options.client is not False


NEEDS: Final = (
    Need(lambda options: options.uefi is False, "a boot", "BLK_DEV_INITRD", effect="it takes no initrd"),
    Need(
        lambda options: "console=" not in options.append,
        "the console ttyAMA0",
        "SERIAL_AMBA_PL011_CONSOLE",
        effect="nothing would be seen of it; --append console=... names another one",
    ),
    Need(
        lambda options: options.sdei,
        "SDEI",
        "ARM_SDE_INTERFACE",
        required=False,
        effect="it makes no SDEI call, and takes no event",
    ),
    Need(_disks, "--drive", "VIRTIO_PCI", "virtio_pci"),
    Need(_disks, "--drive", "VIRTIO_BLK", "virtio_blk"),
    Need(_net, "--net", "VIRTIO_PCI", "virtio_pci"),
    Need(_net, "--net", "VIRTIO_NET", "virtio_net"),
    Need(_shares, "--share", "VIRTIO_PCI", "virtio_pci"),
    Need(_shares, "--share", "NET_9P_VIRTIO", "9pnet_virtio"),
    Need(_shares, "--share", "9P_FS", "9p"),
    Need(_acpi, "a boot by ACPI", "ACPI"),
    Need(lambda options: options.ras, "--ras", "ACPI_APEI_GHES", effect="it reads no hardware error"),
    Need(lambda options: options.kdump is not False, "--kdump", "KEXEC", effect="it loads no capture kernel"),
    Need(_client, "--client", "MODULES"),
    Need(_client, "--client", "ARM_SDE_INTERFACE"),
    Need(_client, "--client", "KPROBES"),
)


def check(
    options: GuestOptions, config: KernelConfig, *, own_initramfs: bool, modules: Iterable[str] | None
) -> list[str]:
    """Compare what was asked with what the kernel has; return what is to be told, in sentences.

    Args:
        options: what was asked.
        config: the kernel's.
        own_initramfs: our own initramfs loads modules; the user's own one may do so too, and nothing is known of it.
        modules: names of those that it can load; None: there are none.

    Raises:
        UsageError: something of it cannot work.
    """
    told = []
    there = set(modules or ())
    for need in NEEDS:
        if not need.asked(options):
            continue
        has = config.get(need.option)
        if has == "y" or (has == "m" and need.module and (not own_initramfs or need.module in there)):
            continue
        why = f" ({need.effect})" if need.effect else ""
        if has is None:
            text = f"{need.word} needs a kernel with CONFIG_{need.option}, which {config.source} does not set{why}"
        elif need.module:
            text = (
                f"{need.word} needs the kernel's module {need.module} (CONFIG_{need.option}=m in {config.source}): "
                "give the kernel's modules by --modules DIR, or build it in"
            )
        else:
            text = f"{need.word} needs CONFIG_{need.option}=y, and {config.source} has it as a module{why}"
        if need.required:
            raise UsageError(text)
        told.append(text)
    return told
