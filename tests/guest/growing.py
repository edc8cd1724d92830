"""Bare-metal guests that make something grow at the host. Put together word by word, so that no compiler is needed."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.boot.kernels import arm64_image

COMPLAINS = [
    0xD2A14000,  # movz x0, #0x0a00, lsl #16    the virtio-mmio transports
    0xB9400801,  # 1: ldr w1, [x0, #8]          DeviceID
    0x7100103F,  # cmp w1, #4                   a source of random numbers
    0x54000060,  # b.eq 2f
    0x91080000,  # add x0, x0, #0x200
    0x17FFFFFC,  # b 1b
    0xD2A88002,  # 2: movz x2, #0x4400, lsl #16 its queue: one entry, of a descriptor that is not there
    0x52A00023,  # movz w3, #1, lsl #16
    0xB9008043,  # str w3, [x2, #128]           avail: idx 1
    0x529FFFE3,  # movz w3, #0xffff
    0xB9008443,  # str w3, [x2, #132]           ring[0]
    0x52820004,  # movz w4, #4096
    0x528000E5,  # movz w5, #7
    0x52800106,  # movz w6, #8
    0xD34CFC47,  # lsr x7, x2, #12
    0xB900701F,  # 3: str wzr, [x0, #0x70]      Status: reset
    0xB9007005,  # str w5, [x0, #0x70]          ACKNOWLEDGE, DRIVER, DRIVER_OK
    0xB9002804,  # str w4, [x0, #0x28]          GuestPageSize
    0xB900301F,  # str wzr, [x0, #0x30]         QueueSel
    0xB9003806,  # str w6, [x0, #0x38]          QueueNum
    0xB9003C04,  # str w4, [x0, #0x3c]          QueueAlign
    0xB9004007,  # str w7, [x0, #0x40]          QueuePFN
    0xB900501F,  # str wzr, [x0, #0x50]         QueueNotify: QEMU prints a line
    0x17FFFFF8,  # b 3b
]
RNG = ("-device", "virtio-rng-device")
"""For QEMU, of the guest above."""

RESETS = [
    0xD2B08000,  # movz x0, #0x8400, lsl #16
    0xF2800120,  # movk x0, #9                  SYSTEM_RESET
    0xD4000003,  # smc #0
    0x14000000,  # b .
]

CALLS_ALL = [
    0xD2B06013,  # movz x19, #0x8300, lsl #16   the functions of an OEM service, each once
    0xD2820014,  # movz x20, #0x1000
    0xAA1303E0,  # 1: mov x0, x19
    0xD4000003,  # smc #0
    0x91000673,  # add x19, x19, #1
    0xF1000694,  # subs x20, x20, #1
    0x54FFFF81,  # b.ne 1b
    0xD2A1200A,  # movz x10, #0x0900, lsl #16
    0x52800881,  # movz w1, #'D'
    0xB9000141,  # str w1, [x10]
    0xD503207F,  # 2: wfi
    0x17FFFFFF,  # b 2b
]
CALLED = 0x1000
"""How many functions that guest calls; it prints a D then."""


def image(directory: Path, code: list[int]) -> Path:
    """A kernel image of `code`, and beside it an initrd (`options` names it), so that none of ours is made."""
    data = bytearray(arm64_image(0x2000))
    struct.pack_into("<2I", data, 0, 0x14000010, 0)  # b .+0x40
    struct.pack_into(f"<{len(code)}I", data, 0x40, *code)
    (directory / "initrd").write_bytes(b"none")
    path = directory / "Image"
    path.write_bytes(data)
    return path


def options(directory: Path, code: list[int], **more: object) -> GuestOptions:
    """Options of a guest that runs `code`."""
    kernel = image(directory, code)
    return GuestOptions(kernel=kernel, initrd=directory / "initrd", smp=1, memory="128M", **more)  # type: ignore[arg-type]


def anonymous(pid: int | None) -> int:
    """Private memory of a process, in bytes (proc(5), RssAnon)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) << 10


def sizes(guest: Guest) -> dict[str, int]:
    """Bytes of each file in the guest's run directory."""
    entries = os.scandir(guest.placement.directory.path)
    return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
