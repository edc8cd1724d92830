"""The layout of the frame window: Python and the monitor must mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.monitor import layout

HEADER = Path(__file__).parents[2] / "guest" / "monitor" / "layout.h"


def test_the_monitor_was_built_from_this_layout() -> None:
    assert HEADER.read_text() == layout.c_header(), "run: python -m qemu_sdei.monitor.layout > guest/monitor/layout.h"


def test_no_two_words_of_a_frame_share_a_place() -> None:
    words = [*layout.Word]
    assert len({int(word) for word in words}) == len(layout.Word.__members__)
    assert layout.CONTEXT.start + 2 == layout.Word.X0
    assert layout.CONTEXT.stop == layout.Word.X17 + 1
    assert layout.Word.X30 < layout.Word.OPS
    assert layout.Word.OPS + layout.MAX_OPS * layout.OP_WORDS <= layout.FRAME_WORDS
    assert layout.Word.ID_REGISTERS + len(layout.RESET_REGISTERS) <= layout.Word.OPS


def test_the_parts_of_the_window_do_not_overlap() -> None:
    assert layout.SEQ_OFFSET + 8 * layout.MAX_CPUS <= layout.KICK_OFFSET
    assert layout.KICK_OFFSET + 8 * layout.MAX_CPUS <= layout.FRAME_OFFSET
    assert layout.KICK_OFFSET + 8 * layout.MAX_CPUS <= layout.KEPT_OFFSET
    assert layout.KEPT_OFFSET + layout.KEPT_SIZE <= layout.FRAME_OFFSET
    assert layout.frame_offset(layout.MAX_CPUS) <= layout.SCRATCH_OFFSET
    assert layout.SCRATCH_OFFSET + layout.SCRATCH_SIZE == layout.WINDOW_SIZE


@pytest.mark.parametrize("size", [64 << 20, 1 << 30, (1 << 30) - 8192, 16 << 30])
def test_the_window_lies_at_the_top_of_ram_and_is_aligned(size: int) -> None:
    base = layout.window_base(0x4000_0000, size)
    assert base % layout.WINDOW_ALIGN == 0
    assert base + layout.WINDOW_SIZE <= 0x4000_0000 + size < base + 2 * layout.WINDOW_SIZE
