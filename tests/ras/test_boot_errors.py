"""The region of a BERT."""

from __future__ import annotations

import pytest

from qemu_sdei.errors import CperError
from qemu_sdei.ras.block import block, parse_block, parse_blocks
from qemu_sdei.ras.boot_errors import region
from qemu_sdei.ras.entry import entry
from tests.ras.samples import SAMPLES

CRASH = block([entry(SAMPLES["arm"], "fatal", timestamp="2026-11-30T12:00:00Z")])
MEMORY = block([entry(SAMPLES["memory"], "recoverable")], raw=b"vendor's words")


def test_what_is_written_is_read() -> None:
    data = region([CRASH, MEMORY], 4096)
    assert len(data) == 4096
    found = parse_blocks(data)
    assert [each.entries for each in found] == [CRASH.entries, MEMORY.entries]
    assert found[1].raw == b"vendor's words"
    assert data[: CRASH.size + MEMORY.size] == CRASH.pack() + MEMORY.pack()
    assert not any(data[CRASH.size + MEMORY.size :])


def test_bytes_that_fill_a_block_up_are_left_out() -> None:
    padded = parse_block(CRASH.pack() + bytes(100))
    assert region([padded, MEMORY], 4096) == region([CRASH, MEMORY], 4096)


def test_no_errors_are_zeroes() -> None:
    assert region([], 64) == bytes(64)


def test_what_does_not_fit() -> None:
    assert len(region([CRASH], CRASH.size)) == CRASH.size
    with pytest.raises(CperError, match=f"{CRASH.size} bytes do not fit into a region of {CRASH.size - 1}"):
        region([CRASH], CRASH.size - 1)
    with pytest.raises(CperError) as error:
        region([CRASH, block([])], 4096)
    assert error.value.field == "blocks[1]"
