"""Kernels as they lie on disk: arm64 Image, also compressed, and EFI zboot; and a name for everything else.

The Image header is Documentation/arch/arm64/booting.rst, "Call the kernel image"; zboot's is
drivers/firmware/efi/libstub/zboot-header.S.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei import compressed
from qemu_sdei.errors import UsageError

MIB: Final = 1 << 20
MAX_FILE: Final = 1024 * MIB
"""Bytes; more than any kernel or initrd has. Bounds what a hostile file can make of our memory."""
MAX_IMAGE_SIZE: Final = 1024 * MIB
_HEADER: Final = struct.Struct("<8x3Q24x4sI")
_ZBOOT: Final = struct.Struct("<4x4sII8x32s")
_ARM64: Final = "give an arm64 Image (arch/arm64/boot/Image, or a Debian arm64 vmlinuz)"


@dataclass(frozen=True, slots=True)
class KernelImage:
    """An arm64 kernel, ready to be copied into RAM.

    `text_offset` and `image_size` are in bytes; `image_size` is what the kernel occupies from its start, BSS included.
    """

    data: bytes
    text_offset: int
    image_size: int
    flags: int
    source: str
    """Path that it came from, for messages."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KernelImage:
        """Read the kernel at `path`, decompressing it where needed.

        Raises:
            UsageError: the file cannot be read, or is something else than an arm64 kernel; the message says what.
        """
        source = os.fspath(path)
        data = read_file(source, "kernel")
        method = compressed.method_of(data)
        if method is None and data[:3] in (b"BZh", b"]\0\0"):  # Image.bz2 and Image.lzma of a build tree
            method = "bzip2" if data[:3] == b"BZh" else "lzma"
        if method is not None:
            data = compressed.decompress(method, data, source, MAX_FILE, "kernel")
        elif data[4:8] == b"zimg":
            data = _zboot(data, source)
        return cls._parse(data, source)

    @property
    def page_size(self) -> int | None:
        """Bytes of a page of this kernel; None: it does not say (bits 1 and 2 of the flags, since Linux 4.6)."""
        return (None, 4096, 16384, 65536)[self.flags >> 1 & 3]

    @classmethod
    def _parse(cls, data: bytes, source: str) -> KernelImage:
        if len(data) < _HEADER.size:
            raise UsageError(f"{source}: {describe(data)}, too short for an arm64 kernel: {_ARM64}")
        text_offset, image_size, flags, magic, _ = _HEADER.unpack_from(data)
        if magic != b"ARMd":
            raise UsageError(f"{source}: this is {describe(data)}: {_instead(data, source)}")
        if flags & 1:
            raise UsageError(
                f"{source}: a big-endian arm64 kernel, and only little-endian ones are supported: {_ARM64}"
            )
        if image_size == 0:
            # Kernels before 3.17 do not say; the offset is then 0x80000, and BSS is a guess on the safe side.
            text_offset, image_size = 0x8_0000, len(data) + 16 * MIB
        if text_offset >= 2 * MIB or text_offset % 4096:
            raise UsageError(f"{source}: damaged arm64 Image: its header has text_offset {text_offset:#x}")
        if image_size > MAX_IMAGE_SIZE:
            raise UsageError(f"{source}: damaged arm64 Image: its header has image_size {image_size:#x}")
        # A signature may follow the image: what is copied always fits what is reserved.
        return cls(data, text_offset, max(image_size, len(data)), flags, source)


def read_file(path: str, what: str) -> bytes:
    """All of the regular file `path`; `what` names its role in messages.

    Raises:
        UsageError: it is not there, not readable, not a regular file, empty, or larger than 1 GiB.
    """
    try:
        # O_NONBLOCK: a FIFO must not stop us here.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        hint = {errno.ENOENT: "there is no such file", errno.EACCES: "you may not read it"}
        reason = hint.get(getattr(error, "errno", None) or 0, getattr(error, "strerror", None) or str(error))
        raise UsageError(f"{what} {path}: {reason}") from None
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{what} {path}: this is a directory: give the file")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{what} {path}: not a regular file: give a file")
        if status.st_size == 0:
            raise UsageError(f"{what} {path}: the file is empty")
        if status.st_size > MAX_FILE:
            raise UsageError(f"{what} {path}: {status.st_size // MIB} MiB, more than any {what} has")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{what} {path}: {error.strerror}") from None
    finally:
        os.close(fd)


def describe(data: bytes) -> str:
    """What a file that is no arm64 Image is, as far as its first bytes tell."""
    if data[:4] == b"\x7fELF":
        machine = int.from_bytes(data[18:20], "little" if data[5:6] == b"\1" else "big")
        names = {0xB7: "AArch64", 0x28: "Arm", 0x3E: "x86-64", 3: "x86", 0xF3: "RISC-V"}
        return f"an ELF file for {names.get(machine, f'machine {machine}')} (a vmlinux?)"
    if data[0x202:0x206] == b"HdrS":
        return "an x86 kernel (bzImage)"
    if data[0x24:0x28] in (b"\x18\x28\x6f\x01", b"\x01\x6f\x28\x18"):
        return "a 32-bit Arm kernel (zImage)"
    if data[0x30:0x35] == b"RISCV":
        return "a RISC-V kernel"
    if data[:2] == b"MZ":
        return "an EFI program that is no plain kernel (a unified kernel image?)"
    if data[:6] in (b"070701", b"070702"):
        return "a cpio archive (an initrd?)"
    for magic, name in _MAGICS.items():
        if data.startswith(magic):
            return name
    if data and data[:512].isascii() and data[:512].decode("ascii").isprintable() | (b"\n" in data[:512]):
        return "a text file"
    return f"{len(data)} bytes of unknown kind"


_MAGICS: Final = {
    b"\xd0\x0d\xfe\xed": "a flattened device tree (a FIT image or a DTB)",
    b"\x27\x05\x19\x56": "a U-Boot image (uImage)",
    b"\xfd7zXZ": "an xz-compressed file",
    b"\x28\xb5\x2f\xfd": "a zstd-compressed file",
    b"\x02\x21\x4c\x18": "an lz4-compressed file (decompress it first)",
    b"\x04\x22\x4d\x18": "an lz4-compressed file (decompress it first)",
    b"\x1f\x8b": "a gzip-compressed file",
    b"BZh": "a bzip2-compressed file",
    b"!<arch>": "a Debian package or ar archive",
    b"QFI\xfb": "a qcow2 disk image",
    b"#!": "a script",
}


def _instead(data: bytes, source: str) -> str:
    """What to give in place of a file that is no arm64 Image."""
    if data[:4] != b"\x7fELF" or int.from_bytes(data[18:20], "little") != 0xB7:
        return _ARM64
    tree = Path(source).resolve().parent
    image = tree / "arch/arm64/boot/Image"
    if image.is_file():
        return f"give {image}, or the build tree {tree} (a vmlinux serves --symbols)"
    return "give the Image that was built with it (`make Image`), or `objcopy -O binary vmlinux Image` makes one"


def _zboot(data: bytes, source: str) -> bytes:
    if len(data) < 0x40:
        raise UsageError(f"{source}: an EFI zboot kernel that is cut short")
    _, offset, size, method = _ZBOOT.unpack_from(data)
    name = method.split(b"\0")[0].decode("ascii", "replace")
    pe = int.from_bytes(data[0x3C:0x40], "little")
    if data[pe : pe + 4] != b"PE\0\0" or data[pe + 4 : pe + 6] != b"\x64\xaa":
        raise UsageError(f"{source}: an EFI zboot kernel, but not for arm64: {_ARM64}")
    if offset < 0x40 or size == 0 or offset + size > len(data):
        raise UsageError(f"{source}: damaged EFI zboot kernel: its payload lies outside of the file")
    payload = data[offset : offset + size]
    method = "zstd" if name.startswith("zstd") else {"xzkern": "xz"}.get(name, name)
    if method in ("gzip", "xz", "lzma", "zstd"):
        # The kernel's build puts the payload's size behind it: that is left over.
        return compressed.decompress(method, payload, source, MAX_FILE, "kernel")
    raise UsageError(f"{source}: an EFI zboot kernel compressed with {name!r}, which cannot be read here: {_ARM64}")
