"""After a reset the guest runs what is in RAM, not what QEMU translated before."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.boot.kernels import arm64_image

# An arm64 Image that calls a function, changes it to return 2 in place of 1, calls it again, prints both results on
# the UART and resets the machine (PSCI SYSTEM_RESET); it prints "S" and stops when the first call does not return 1.
MAIN = [
    0x58007E8A,  # 0x40: ldr x10, uart
    0x940003EF,  # bl function
    0x1100C001,  # add w1, w0, #'0'
    0xB9000141,  # str w1, [x10]
    0x7100041F,  # cmp w0, #1
    0x54000221,  # b.ne stale
    0x10007D42,  # adr x2, function
    0x18007D63,  # ldr w3, changed
    0xB9000043,  # str w3, [x2]
    0xD50B7B22,  # dc cvau, x2
    0xD5033F9F,  # dsb sy
    0xD50B7522,  # ic ivau, x2
    0xD5033F9F,  # dsb sy
    0xD5033FDF,  # isb
    0x940003E2,  # bl function
    0x1100C001,  # add w1, w0, #'0'
    0xB9000141,  # str w1, [x10]
    0x52800141,  # mov w1, #'\n'
    0xB9000141,  # str w1, [x10]
    0x58007C60,  # ldr x0, system_reset
    0xD4000003,  # smc #0
    0x14000000,  # b .
    0x52800A61,  # stale: mov w1, #'S'
    0xB9000141,  # str w1, [x10]
    0x14000000,  # b .
]
FUNCTION = struct.pack("<2I2I2Q", 0xD2800020, 0xD65F03C0, 0xD2800040, 0, 0x0900_0000, 0x8400_0009)
"""mov x0, #1; ret; then changed, uart and system_reset."""


def image_that_changes_itself() -> bytes:
    data = bytearray(arm64_image(0x2000))
    struct.pack_into("<2I", data, 0, 0x14000010, 0)  # b MAIN
    struct.pack_into(f"<{len(MAIN)}I", data, 0x40, *MAIN)
    data[0x1000 : 0x1000 + len(FUNCTION)] = FUNCTION
    return bytes(data)


@pytest.mark.guest
def test_code_that_the_guest_changed_is_the_loaded_one_again_after_a_reset(tmp_path: Path) -> None:
    (tmp_path / "Image").write_bytes(image_that_changes_itself())
    (tmp_path / "initrd").write_bytes(b"none")
    options = GuestOptions(kernel=tmp_path / "Image", initrd=tmp_path / "initrd", smp=1, memory="128M")
    with Guest(options) as guest:
        for _ in range(3):
            assert guest.expect(r"(12|\dS)", 20)[1] == "12"
