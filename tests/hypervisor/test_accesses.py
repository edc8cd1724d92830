"""An access that stage 2 stops: what a device would see of it, from the words that the architecture has for it."""

from __future__ import annotations

import pytest

from qemu_sdei.hypervisor import accesses
from qemu_sdei.hypervisor.accesses import Access

FAR, HPFAR = 0xFFFF_8000_0902_0008, 0x0902_0000 >> 12 << 4
STORE = 0x9380_0046
"""ESR_EL2 of a 4-byte store, of register 0: ISV, SAS 2, WnR, a translation fault of level 2."""


def syndrome(size: int, register: int, *, write: bool = False, signed: bool = False, wide: bool = False) -> int:
    sas = size.bit_length() - 1
    return 0x24 << 26 | 1 << 25 | 1 << 24 | sas << 22 | signed << 21 | register << 16 | wide << 15 | write << 6 | 7


def test_a_store_as_qemu_told_of_it() -> None:
    assert accesses.of(STORE, FAR, HPFAR) == Access(0x0902_0008, 4, True, 0, False, False)


@pytest.mark.parametrize(
    ("value", "size", "signed", "wide", "loaded"),
    [
        (0x80, 1, False, False, 0x80),
        (0x80, 1, True, False, 0xFFFF_FF80),
        (0x80, 1, True, True, 0xFFFF_FFFF_FFFF_FF80),
        (0x7F, 1, True, True, 0x7F),
        (0x8000_0000, 4, True, True, 0xFFFF_FFFF_8000_0000),
        ((1 << 64) - 1, 8, False, True, (1 << 64) - 1),
    ],
)
def test_what_a_load_leaves_in_its_register(value: int, size: int, signed: bool, wide: bool, loaded: int) -> None:
    access = accesses.of(syndrome(size, 19, signed=signed, wide=wide), FAR, HPFAR)
    assert access is not None
    assert access.register == 19
    assert access.loaded(value) == loaded


def test_a_store_is_of_as_many_bytes_as_it_has() -> None:
    access = accesses.of(syndrome(2, 3, write=True), FAR, HPFAR)
    assert access is not None
    assert access.stored(0x1234_5678_9ABC_DEF0) == 0xDEF0


@pytest.mark.parametrize(
    "odd",
    [
        syndrome(4, 0) & ~(1 << 24),  # of two registers, or of a vector
        syndrome(4, 0) | 1 << 7,  # a walk of the guest's own tables
        syndrome(4, 0) | 1 << 10,  # no address
        0x20 << 26 | 1 << 24,  # a fetch
        0x16 << 26 | 1 << 24,  # HVC
        0,
    ],
)
def test_what_is_none_of_one_register(odd: int) -> None:
    assert accesses.of(odd, FAR, HPFAR) is None
