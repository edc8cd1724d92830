"""Where kernel, initrd and device tree go: the rules of Documentation/arch/arm64/booting.rst."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.boot.image import KernelImage
from qemu_sdei.boot.load_addresses import BLOCK, plan
from qemu_sdei.errors import UsageError

MIB = 1 << 20
RAM_BASE = 0x4000_0000


def kernel(image_size: int, text_offset: int = 0) -> KernelImage:
    return KernelImage(b"", text_offset, image_size, 0xA, "test")


@given(
    image_size=st.integers(1, 200 * MIB),
    text_offset=st.integers(0, 511).map(lambda pages: pages * 4096),
    initrd_size=st.integers(0, 300 * MIB),
    dtb_size=st.integers(1, BLOCK),
    usable=st.integers(1, 2048).map(lambda count: count * MIB),
    ram_base=st.sampled_from([0, RAM_BASE, RAM_BASE + 0x1000, 0x80_0000_0000]),
)
def test_every_plan_obeys_the_boot_protocol(
    image_size: int, text_offset: int, initrd_size: int, dtb_size: int, usable: int, ram_base: int
) -> None:
    try:
        place = plan(kernel(image_size, text_offset), initrd_size, dtb_size, ram_base, usable)
    except UsageError:
        assert image_size + 2 * initrd_size + dtb_size + text_offset > usable - 36 * MIB  # it was really tight
        return
    assert (place.kernel_address - text_offset) % (2 * MIB) == 0
    # What QEMU put at the start of RAM is still there when loading is done again.
    assert place.kernel_address >= ram_base + 2 * MIB
    assert place.initrd_address >= place.kernel_address + image_size
    assert place.initrd_address % 4096 == 0
    assert place.dtb_address >= place.initrd_address + initrd_size
    assert place.dtb_address % 8 == 0
    assert place.dtb_address // BLOCK == (place.dtb_address + dtb_size - 1) // BLOCK
    assert place.dtb_address + dtb_size == place.end <= ram_base + usable
    window = place.kernel_address & -(1 << 30)
    assert place.initrd_address + initrd_size <= window + (32 << 30)


@pytest.mark.parametrize(
    ("image_size", "initrd_size"), [(34 * MIB, 2 * MIB), (45 * MIB, 2 * MIB), (45 * MIB, 300 * MIB)]
)
def test_the_amount_of_memory_that_the_message_names_is_enough(image_size: int, initrd_size: int) -> None:
    with pytest.raises(UsageError) as error:
        plan(kernel(image_size), initrd_size, BLOCK, RAM_BASE, 62 * MIB)
    named = re.search(r"use --memory (\d+)$", str(error.value))
    assert named is not None
    memory = int(named[1])
    plan(kernel(image_size), initrd_size, BLOCK, RAM_BASE, (memory - 2) * MIB)
    assert memory < (image_size + 2 * initrd_size) // MIB + 72
