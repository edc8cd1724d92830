"""A capture kernel: what our own initramfs carries for it, what its own initramfs does, and the room that it needs.

The program that puts it in place and the one that takes the memory away are one: `guest/kdump/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from qemu_sdei import blobs
from qemu_sdei.boot import initramfs
from qemu_sdei.boot.image import KernelImage
from qemu_sdei.boot.load_addresses import BLOCK, HEADROOM, MIB, PAGE, align_up
from qemu_sdei.errors import UsageError

FOLDER: Final = "qemu-sdei/kdump"
"""Where the first kernel's initramfs has it; init takes it away once it is loaded."""
SERIAL: Final = "qemu-sdei-vmcore"
"""By which the capture kernel knows the disk for the vmcore among others."""
SMALLEST: Final = 64 * MIB
"""Bytes to reserve; no kernel of today starts in less."""
_PROGRAM: Final = "kdump"
_SCRIPT: Final = r"""
found=$(dmesg | sed -n 's/.*sdei: \(SDEIv[0-9.]* ([0-9a-fx]*)\) detected in firmware.*/\1/p' | head -n 1)
echo "sdei ${found:-none}"
echo cpus $(dmesg | sed -n 's/.*physical CPU 0x0*\([0-9a-f][0-9a-f]*\) .*/\1/p
	s/.*Booted secondary processor 0x0*\([0-9a-f][0-9a-f]*\) .*/\1/p')
/bin/kdump copy
"""
"""What the capture kernel's init runs; `qemu_sdei/guest/kdump_stages.py` reads what it prints."""


def nonce_of(nonce: str) -> str:
    """What the words of the capture kernel's init are known by, where those of the first kernel's are by `nonce`."""
    return nonce + "kdump"


def own_initramfs(busybox: bytes, nonce: str, drivers: Sequence[tuple[str, bytes]]) -> bytes:
    """The capture kernel's initramfs. `nonce`: of the first kernel's; `drivers`: name and content of modules for the
    disk. Raises `UsageError`.
    """
    return initramfs.build(
        busybox,
        command=[_SCRIPT],
        nonce=nonce_of(nonce),
        extra_files={"bin/kdump": (blobs.read(_PROGRAM), 0o755)},
        drivers=drivers,
    )


def files(kernel: KernelImage, initrd: bytes, append: str) -> Mapping[str, tuple[bytes, int]]:
    """What the first kernel's initramfs carries, contents and mode by path. Raises `UsageError`."""
    return {
        f"{FOLDER}/kdump": (blobs.read(_PROGRAM), 0o755),
        f"{FOLDER}/Image": (kernel.data, 0o644),
        f"{FOLDER}/initrd": (initrd, 0o644),
        f"{FOLDER}/cmdline": (append.encode(errors="surrogateescape"), 0o644),
    }


def check_fit(kernel: KernelImage, initrd_size: int, reserved: int) -> None:
    """Raise `UsageError` if a capture kernel does not fit into `reserved` bytes.

    As `guest/kdump/load.c` places it. That reckons again, with what the first kernel has reserved indeed.
    """
    need = kernel.text_offset + align_up(kernel.image_size, PAGE) + 2 * initrd_size + 2 * PAGE + 3 * BLOCK + HEADROOM
    if need > reserved:
        raise too_small(align_up(need, MIB) // MIB, reserved // MIB)


def too_small(need: int, reserved: int) -> UsageError:
    """The error for a capture kernel that needs `need` MiB where `reserved` MiB are reserved."""
    return UsageError(
        f"the capture kernel needs {need} MiB, and {reserved} MiB are reserved for it: use --crashkernel "
        f"{align_up(need, 32)}M"
    )
