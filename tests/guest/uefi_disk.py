"""A disk that UEFI boots, made of Debian's packages without root: GRUB as Debian signs it, a kernel, our initramfs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from qemu_sdei.host.debian import DebianCache
from scripts.disklib.layout import LINUX, MIB, MTOOLS, SYSTEM, fill_system_partition, grub, write_gpt

_MEGABYTES = 160
GRUB_CFG = """set timeout=0
menuentry debian {
    linux /vmlinuz console=ttyAMA0 panic=-1 %s
    initrd /initrd.img
}
"""


def missing() -> list[str]:
    """Programs that are needed and not here."""
    return [name for name in MTOOLS if shutil.which(name) is None]


def make(work: Path, image: Path, initrd: Path, *, append: str = "", root: Path | None = None) -> None:
    """Make the disk `image` with an EFI system partition in it, from which Debian's kernel boots. `root`: a file system
    that the second partition is to have.
    """
    cache = DebianCache()
    config = work / "grub.cfg"
    config.write_text(GRUB_CFG % append)
    partitions = [(SYSTEM, _MEGABYTES)]
    if root is not None:
        partitions.append((LINUX, -(-root.stat().st_size // MIB)))
    offset, *others = write_gpt(image, partitions)
    files = {
        "EFI/BOOT/BOOTAA64.EFI": grub(cache, work),
        "EFI/debian/grub.cfg": config,
        "vmlinuz": cache.kernel("6.1").image,
        "initrd.img": initrd,
    }
    fill_system_partition(image, offset, _MEGABYTES, files)
    if root is not None:
        command = ["dd", f"if={root}", f"of={image}", "bs=1M", f"seek={others[0] // MIB}", "conv=notrunc,sparse"]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
