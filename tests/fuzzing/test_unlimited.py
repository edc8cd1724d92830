"""Where Linux' limits on what it prints of errors are, by what it lists."""

from __future__ import annotations

import struct

import pytest

from qemu_sdei.fuzzing.unlimited import addresses, alike, is_limit

LISTED = """\
ffff8000817e0000 D _sdata
ffff8000819abcd0 d ratelimit_uncorrected.1
ffff8000819abcf8 d ratelimit_corrected.0
  40210000-418affff : Kernel code
  41fe0000-4241ffff : Kernel data
"""


def test_they_are_where_the_kernel_says() -> None:
    assert addresses(LISTED) == [0x41FE_0000 + 0x1CBCD0, 0x41FE_0000 + 0x1CBCF8]


@pytest.mark.parametrize(
    "text",
    [
        "",
        LISTED.replace("Kernel data", "reserved"),
        LISTED.replace(" _sdata", " _stext"),
        LISTED.replace("ffff8000819", "0000000000"),
        LISTED.replace("4241ffff", "41fe1000"),
        LISTED.replace("abcd0", "abcd1").replace("abcf8", "abcf9"),
    ],
)
def test_what_does_not_fit_is_left_alone(text: str) -> None:
    assert addresses(text) == []


def test_they_must_look_like_it() -> None:
    assert is_limit(struct.pack("<Iii", 0, 1250, 2))
    assert is_limit(struct.pack("<Iii", 0, 5000, 2))
    for wrong in ((1, 1250, 2), (0, 0, 2), (0, 1250, 10), (0, 1251, 2)):
        assert not is_limit(struct.pack("<Iii", *wrong))


def test_without_symbols_they_are_known_by_what_they_look_like() -> None:
    """Linux 6.1 of Debian lists no data."""
    limit = struct.pack("<Iii", 0, 1250, 2).ljust(40, b"\0")
    other = struct.pack("<Iii", 0, 1250, 10).ljust(40, b"\0")
    listed = "  40001000-40001fff : Kernel data\n"
    memory = bytearray(0x3000)
    memory[0x1100 : 0x1100 + 160] = other + limit + limit + other
    assert alike(listed, bytes(memory), 0x4000_0000) == [0x4000_1128, 0x4000_1150]
    assert alike("", bytes(memory), 0x4000_0000) == []
    memory[0x2100:0x2150] = limit + limit
    assert alike(listed, bytes(memory), 0x4000_0000) == [0x4000_1128, 0x4000_1150], "that is no data of the kernel's"
    memory[0x1800:0x1850] = limit + limit
    assert alike(listed, bytes(memory), 0x4000_0000) == [], "which of them?"
    memory[0x1100 : 0x1100 + 160] = other + limit + other + limit
    memory[0x1800:0x1850] = bytes(80)
    assert alike(listed, bytes(memory), 0x4000_0000) == []
    assert alike("  40001000-4fffffff : Kernel data\n", b"", 0x4000_0000) == []
