"""What `scripts/debian-disk` installs: packages, configuration, and what the guest does to finish it."""

from __future__ import annotations

import hashlib
import json
from typing import Final

SUITE: Final = "bookworm"
PACKAGES: Final = ("systemd-sysv", "udev", "kmod", "initramfs-tools", "linux-image-arm64")
HOSTNAME: Final = "debian"
SYSTEM_MIB: Final = 64
ROOT_MIB: Final = 1700
ROOT_UUID: Final = "5de1d15c-0000-4000-8000-000000000002"
"""Of the root file system: GRUB and the kernel look for it by this."""

GRUB: Final = f"""\
set timeout=0
search --no-floppy --fs-uuid --set=root {ROOT_UUID}
menuentry debian {{
    linux /vmlinuz root=UUID={ROOT_UUID} ro console=ttyAMA0 panic=-1
    initrd /initrd.img
}}
"""

FILES: Final = {
    "etc/fstab": f"UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": f"{HOSTNAME}\n",
    "etc/machine-id": "",
    # The driver of the disk is named: in the chroot nothing says which one there will be.
    "etc/initramfs-tools/conf.d/disk": "MODULES=list\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    # Written through at each file, an emulated disk takes most of the time. If the guest dies the disk is made anew.
    "etc/dpkg/dpkg.cfg.d/disk": "force-unsafe-io\n"
    + "".join(
        f"path-exclude=/{path}/*\n"
        for path in (
            "usr/share/doc",
            "usr/share/info",
            "usr/share/locale",
            "usr/share/man",
            *(
                f"lib/modules/*/kernel/{part}"
                for part in ("drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/staging", "sound")
            ),
        )
    ),
}
"""Files of the root file system, before anything is configured."""

SECOND_STAGE: Final = """\
set -e
mkdir /new
mount -t ext4 -o discard,nobarrier,data=writeback /dev/vda2 /new
mount -t devtmpfs none /new/dev
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C
chroot /new /debootstrap/debootstrap --second-stage
chroot /new passwd -d root
test -s /new/vmlinuz && test -s /new/initrd.img
fstrim /new || true
sync
for mounted in sys proc dev; do umount -l /new/$mounted 2>/dev/null || true; done
umount /new || mount -o remount,ro /new
"""
"""Run in the guest, whose disk it is: debootstrap's second stage."""


def digest() -> str:
    """Which recipe it is: another one makes another disk."""
    whole = json.dumps([SUITE, PACKAGES, SYSTEM_MIB, ROOT_MIB, ROOT_UUID, GRUB, FILES, SECOND_STAGE])
    return hashlib.sha256(whole.encode()).hexdigest()[:12]
