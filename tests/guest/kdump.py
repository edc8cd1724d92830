"""A capture kernel for Linux guests: what kexec-tools and kdump-tools do, by our own program (`tests/guest/kexec.py`).

Everything is read from the kernel that runs, so a capture kernel can be given one of its own.
"""

from __future__ import annotations

import base64
import gzip
import re
import struct
from pathlib import Path
from typing import Final

from qemu_sdei.acpi import fdt
from qemu_sdei.guest.guest import Guest
from tests.guest.kexec import Segment, kexec_a64

IMAGE: Final = "/boot/Image"
"""Where the guest has its kernel: `GuestOptions.files`."""
_TREE, _INITRD, _CORE = "/boot/dtb", "/boot/initrd", "/boot/elfcorehdr"
_MIB: Final = 1 << 20
_TREE_ROOM: Final = 2 * _MIB  # arm64 maps no more of a device tree, and wants it in 2 MiB of its own
_PAGE: Final = 4096


def crash_load(guest: Guest, image: Path, *, append: str = "", again: str | None = None) -> None:
    """Load `image`, which the guest has at `IMAGE`, with the guest's own files as its initrd, for a panic.

    Args:
        append: added to the kernel command line, which is else that of the kernel that runs, without its crashkernel=.
        again: crashkernel= of the capture kernel, which has the files then to load another; None: it does without.
    """
    header = image.read_bytes()[:64]
    assert header[56:60] == b"ARM\x64", "an Image that is not compressed"
    iomem = shell(guest, "cat /proc/iomem")
    ((start, end),) = _ranges(iomem, r" +([0-9a-f]+)-([0-9a-f]+) : Crash kernel")
    left_out = r"^\./\(boot/initrd\|boot/dtb\|boot/elfcorehdr\)$" if again else r"^\./boot/"
    shell(guest, f"cd /; find . -xdev | grep -v '{left_out}' | cpio -o -H newc >{_INITRD} 2>/dev/null; cd")
    initrd_size = int(shell(guest, f"stat -c %s {_INITRD}"))
    core = _core_header(guest, iomem, (start, end))
    kernel_room = int.from_bytes(header[16:24], "little")
    top = (end & ~(2 * _MIB - 1)) - _TREE_ROOM
    tree_at, core_at, purgatory_at = top, top - 2 * _PAGE, top - 3 * _PAGE
    initrd_at = (purgatory_at - initrd_size) & ~(_PAGE - 1)
    assert start % (2 * _MIB) == 0
    assert start + kernel_room < initrd_at, "crashkernel= is too small"
    tree = _tree(guest, append, again, (start, end), (core_at, len(core)), (initrd_at, initrd_size))
    put(guest, _TREE, tree)
    put(guest, _CORE, core)
    program = kexec_a64(
        Segment(IMAGE, image.stat().st_size, start, kernel_room),
        Segment(_TREE, len(tree), tree_at, _TREE_ROOM),
        Segment(_INITRD, initrd_size, initrd_at, initrd_size),
        Segment(_CORE, len(core), core_at, 2 * _PAGE),
        purgatory_at=purgatory_at,
        crash=True,
    )
    put(guest, "/tmp/crash-load", program)
    shell(guest, "chmod 755 /tmp/crash-load; /tmp/crash-load")
    assert shell(guest, "cat /sys/kernel/kexec_crash_loaded") == "1"


def shell(guest: Guest, command: str) -> str:
    """The output of a command that must not fail."""
    result = guest.run(command, 120)
    assert result.status == 0, f"{command}: {result.status} {result.output}"
    return result.output.strip()


def put(guest: Guest, path: str, data: bytes) -> None:
    """Write a file of the guest."""
    text = base64.b64encode(gzip.compress(data)).decode()
    shell(guest, f"echo {text} | base64 -d | gunzip >{path}")


def online(guest: Guest) -> list[int]:
    """The physical numbers of the CPUs that are online, by the kernel's own number: a kernel calls the one 0 that it
    was started on. From its log, which must still be there.
    """
    text = shell(guest, "cat /sys/devices/system/cpu/online")
    parts = [part.split("-") for part in text.split(",")]
    numbers = [n for first, *last in parts for n in range(int(first), int([first, *last][-1]) + 1)]
    log = shell(guest, "dmesg | grep -E 'Booting Linux on|Booted secondary'")
    found = re.findall(r"physical CPU 0x([0-9a-f]+)|CPU(\d+): Booted secondary processor 0x([0-9a-f]+)", log)
    physical = {int(n or 0): int(own or other, 16) & 0xFF for own, n, other in found}
    return [physical[n] for n in numbers]


def _tree(
    guest: Guest,
    append: str,
    again: str | None,
    memory: tuple[int, int],
    core: tuple[int, int],
    initrd: tuple[int, int],
) -> bytes:
    """The kernel's own device tree (by ACPI that of its EFI stub, with nothing but /chosen), for the capture kernel."""
    tree = fdt.parse(base64.b64decode(shell(guest, "base64 /sys/firmware/fdt")))
    chosen = tree.root.child("chosen")
    assert chosen is not None
    words = [word for word in chosen.text("bootargs").split() if not word.startswith("crashkernel=")]
    words += [f"crashkernel={again}"] if again else []
    chosen.set_text("bootargs", " ".join([*words, append]).strip())
    start, end = memory
    chosen.properties["linux,usable-memory-range"] = struct.pack(">2Q", start, end - start)
    chosen.properties["linux,elfcorehdr"] = struct.pack(">2Q", *core)
    chosen.properties["linux,initrd-start"] = struct.pack(">Q", initrd[0])
    chosen.properties["linux,initrd-end"] = struct.pack(">Q", sum(initrd))
    chosen.properties.pop("kaslr-seed", None)
    return fdt.flatten(tree)


def _ranges(iomem: str, pattern: str) -> list[tuple[int, int]]:
    """(start, end) of each line of /proc/iomem that is `pattern`."""
    found = (re.fullmatch(pattern, line) for line in iomem.splitlines())
    return [(int(match[1], 16), int(match[2], 16) + 1) for match in found if match]


def _core_header(guest: Guest, iomem: str, crash: tuple[int, int]) -> bytes:
    """The ELF header of /proc/vmcore: one note of each CPU's registers, one of vmcoreinfo, and RAM."""
    cpus = "for c in /sys/devices/system/cpu/cpu[0-9]*; do cat $c/crash_notes $c/crash_notes_size; done"
    numbers = shell(guest, cpus).split()
    notes = [(int(at, 16), int(size)) for at, size in zip(numbers[::2], numbers[1::2], strict=True)]
    at, size = shell(guest, "cat /sys/kernel/vmcoreinfo").split()
    notes.append((int(at, 16), int(size, 16)))
    ram: list[tuple[int, int]] = []
    for start, end in _ranges(iomem, r"([0-9a-f]+)-([0-9a-f]+) : System RAM"):
        parts = [(start, min(end, crash[0])), (max(start, crash[1]), end)]
        ram += [(low, high) for low, high in parts if low < high]
    rows = [(4, 0, at, 0, at, size, size, 0) for at, size in notes]
    rows += [(1, 7, low, 0, low, high - low, high - low, 0) for low, high in ram]
    sizes = (64, 56, len(rows), 0, 0, 0)
    header = struct.pack("<4s5B7x2HI3QI6H", b"\x7fELF", 2, 1, 1, 0, 0, 4, 183, 1, 0, 64, 0, 0, *sizes)
    data = header + b"".join(struct.pack("<2I6Q", *row) for row in rows)
    assert len(data) <= 2 * _PAGE
    return data
