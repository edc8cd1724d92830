"""Drivers that Debian's kernels have as modules and our own initramfs needs: virtio disks, network and 9p, ext4.

They come from the kernel's own package. It has no modules.dep (the package's installation makes that), so each module
is asked what it depends on.
"""

from __future__ import annotations

import hashlib
import lzma
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.host.unpack import damaged, read_sums

DISK: Final = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
"""ext4 asks the kernel's crypto library for crc32c by name, which no dependency tells."""
NET: Final = ("virtio_pci", "virtio_net")
CHANNEL: Final = ("virtio_pci", "virtio_console")
SHARE: Final = ("virtio_pci", "9pnet_virtio", "9p")

_DEPENDS: Final = re.compile(rb"\0depends=([^\0]*)")


def load_order(folder: Path, wanted: Iterable[str]) -> list[tuple[str, bytes]]:
    """Name and content (not compressed) of the modules `wanted` and of all they need, in the order to load them.

    What is not in `folder` is taken to be built into the kernel, if it is wanted by its own name.

    Raises:
        UsageError: a module that another one depends on is not there, or one is not what was unpacked.
    """
    sums = read_sums(folder)
    # What was unpacked and is gone is not built into the kernel.
    names = {file.name for file in folder.iterdir()} | sums.keys()
    files = {_name(folder / name): folder / name for name in names if ".ko" in name}
    order: dict[str, bytes] = {}

    def add(name: str, needed_by: str = "") -> None:
        if name in order:
            return
        if name not in files:
            if needed_by:
                raise UsageError(f"kernel module {needed_by} needs {name}, which is not in {folder}")
            return
        data = _content(files[name], sums)
        found = _DEPENDS.search(data)
        for other in found[1].decode().split(",") if found else ():
            if other:
                add(other.replace("-", "_"), name)
        order[name] = data

    for name in wanted:
        add(name)
    return list(order.items())


def _name(file: Path) -> str:
    return file.name.partition(".ko")[0].replace("-", "_")


def _content(file: Path, sums: dict[str, str]) -> bytes:
    try:
        data = file.read_bytes()
        if sums and hashlib.sha256(data).hexdigest() != sums.get(file.name):
            raise damaged(file, file.parent)
        return lzma.decompress(data) if file.suffix == ".xz" else data
    except (OSError, lzma.LZMAError):
        raise damaged(file, file.parent) from None
