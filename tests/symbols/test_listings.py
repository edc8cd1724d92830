"""System.map, kallsyms, /proc/modules and sections, as people copy them."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.errors import UsageError
from qemu_sdei.symbols import listings
from qemu_sdei.symbols.symbol_table import SymbolTable

KALLSYMS = (
    b"ffffd9f335600000 T _text\n"
    b"ffffd9f335610000 t local_one\n"
    b"ffffd9f335610040 W weak_one\n"
    b"ffffd9f335610080 r some_data\n"
    b"ffffd9f3356da000 t on_event\t[sdei_test]\n"
    b"ffffd9f3356da040 d counters\t[sdei_test]\n"
)


def shown(table: SymbolTable, address: int) -> str:
    return str(table.resolve(address))


def test_code_has_names_and_data_ends_it() -> None:
    table = listings.symbols(KALLSYMS, "kallsyms")
    assert shown(table, 0xFFFF_D9F3_3561_0004) == "local_one+0x4/0x40"
    assert shown(table, 0xFFFF_D9F3_3561_0040) == "weak_one+0x0/0x40"
    assert table.resolve(0xFFFF_D9F3_3561_0080) is None
    assert shown(table, 0xFFFF_D9F3_356D_A010) == "on_event+0x10/0x40 [sdei_test]"


def test_a_copy_from_a_console_will_do() -> None:
    text = (
        b"~ # cat /proc/kallsyms\r\n" + KALLSYMS.replace(b"\n", b"\r\n") + b"[   12.5] random: crng init done\r\nffffd9"
    )
    assert len(listings.symbols(text, "copy")) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            b"ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n",
            "linux-image-RELEASE-dbg",
        ),
        (b"0000000000000000 T _text\n0000000000000000 t local\n", "kptr_restrict"),
        (b"", "has no symbols"),
        (KALLSYMS + b"what is this\n" * 100, "100 of its lines are no symbols"),
    ],
)
def test_what_is_no_listing_is_refused_with_the_reason(text: bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        listings.symbols(text, "FILE")


def test_modules_have_a_place() -> None:
    text = (
        "sdei_test 16384 0 - Live 0xffffd9f3356da000 (O)\n"
        "virtio_blk 24576 1 ext4,nfs, Live 0xffffd9f3356c0000\n"
        "hidden 1 0 - Live 0x0\n"
    )
    assert listings.is_modules(text)
    assert listings.modules(text) == {"sdei_test": 0xFFFF_D9F3_356D_A000, "virtio_blk": 0xFFFF_D9F3_356C_0000}


def test_sections_have_places() -> None:
    text = (
        "/sys/module/sdei_test/sections/.text:0xffff800008a0\n"
        "/sys/module/sdei_test/sections/.exit.text:0xffff800008b0\n"
    )
    assert listings.is_sections(text)
    assert listings.sections(text) == {"sdei_test": {".text": 0xFFFF_8000_08A0, ".exit.text": 0xFFFF_8000_08B0}}


@given(st.binary(max_size=3000))
def test_noise_is_no_crash(data: bytes) -> None:
    text = data.decode("latin-1")
    listings.modules(text)
    listings.sections(text)
    listings.is_symbols(data)
    with contextlib.suppress(UsageError):
        listings.symbols(KALLSYMS + data, "noise")


def test_a_large_kernel_takes_a_small_multiple_of_its_listing() -> None:
    """200,000 lines, as a kernel with debugging options has."""
    text = b"".join(b"%016x t function_number_%d\n" % (0xFFFF_8000_0800_0000 + 64 * at, at) for at in range(200_000))
    table = listings.symbols(text, "large")
    assert shown(table, 0xFFFF_8000_0800_0000 + 64 * 123_456 + 4) == "function_number_123456+0x4/0x40"
    tracemalloc.start()
    try:
        listings.symbols(text[: len(text) // 10], "large")
        assert tracemalloc.get_traced_memory()[1] < 3 * len(text)
    finally:
        tracemalloc.stop()
