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
    used = {int(word) for word in words} | {*range(layout.Word.X0, layout.Word.X30)}
    used |= {layout.Word.ID_REGISTERS + n for n in range(len(layout.RESET_REGISTERS))}
    used |= {*range(layout.OPS.start, layout.OPS.stop)}
    assert used.isdisjoint(layout.RESERVED)
    assert used | {*layout.RESERVED} == {*range(layout.FRAME_WORDS)}
    assert layout.Word.OPS + layout.MAX_OPS * layout.OP_WORDS <= layout.FRAME_WORDS
    assert layout.Word.ID_REGISTERS + len(layout.RESET_REGISTERS) <= layout.Word.OPS


def test_the_parts_of_the_window_do_not_overlap() -> None:
    assert layout.SEQ_OFFSET + 8 * layout.MAX_CPUS <= layout.KICK_OFFSET
    assert layout.KICK_OFFSET + 8 * layout.MAX_CPUS <= layout.FRAME_OFFSET
    assert layout.KICK_OFFSET + 8 * layout.MAX_CPUS <= layout.KEPT_OFFSET
    assert layout.KEPT_OFFSET + layout.KEPT_SIZE <= layout.FRAME_OFFSET
    assert layout.frame_offset(layout.MAX_CPUS) <= layout.MONITOR_OFFSET
    assert layout.MONITOR_OFFSET + layout.MAX_CPUS * layout.MONITOR_SIZE <= layout.SCRATCH_OFFSET
    assert layout.ready_offset(0) >= layout.SCRATCH_OFFSET + layout.SCRATCH_SIZE
    assert layout.ready_offset(layout.MAX_CPUS) == layout.WINDOW_SIZE


def test_the_lines_that_go_to_and_fro() -> None:
    """Line 0 is the host's alone. What is rarely read is in no line with what each call needs."""
    word = layout.Word
    assert {one for one in word if one < 8} == {word.ACK, word.FLAGS, word.HALT_POLL}
    rare = (word.DONE, word.MONITOR_VERSION, word.HALT_POLLED, word.PROOF, word.ESR_EL2, word.SCR_EL3, word.OPS)
    assert all(one // 8 > word.X17 // 8 for one in rare)
    assert layout.HEAD.start <= word.COUNTER < layout.HEAD.stop, "the journal keeps it"


def test_words_of_older_versions() -> None:
    frame = memoryview(bytearray(layout.FRAME_SIZE)).cast("Q")
    frame[15] = 7
    assert layout.done_word(3) == 15
    assert layout.counter_of(frame, 3) is None
    assert layout.done_word(4) == 64
    assert layout.counter_of(frame, 4) == 7
    frame[15] = 0
    assert layout.counter_of(frame, 4) is None


@pytest.mark.parametrize("size", [64 << 20, 1 << 30, (1 << 30) - 8192, 16 << 30])
def test_the_window_lies_at_the_top_of_ram_and_is_aligned(size: int) -> None:
    base = layout.window_base(0x4000_0000, size)
    assert base % layout.WINDOW_ALIGN == 0
    assert base + layout.WINDOW_SIZE <= 0x4000_0000 + size < base + 2 * layout.WINDOW_SIZE
