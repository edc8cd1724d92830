"""Numbers, tables and the console filter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.cli.inject_command import percentiles
from qemu_sdei.cli.output import print_table
from qemu_sdei.cli.terminal import MarkerFilter


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5000], {"min": 5, "median": 5, "p99": 5, "max": 5}),
        ([3000, 1000, 2000], {"min": 1, "median": 2, "p99": 3, "max": 3}),
        (list(range(1000, 101_000, 1000)), {"min": 1, "median": 50, "p99": 99, "max": 100}),
    ],
)
def test_percentiles(values: list[int], expected: dict[str, float]) -> None:
    assert percentiles(values) == expected


def test_a_table_off_a_terminal_is_plain_and_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Title", ["a", "long name"], [["x", 1], ["longer", None]])
    assert capsys.readouterr().out == "Title\na       long name\nx       1\nlonger\n\n"


def test_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("", ["a", "b"], [])
    assert capsys.readouterr().out == "a  b\n\n"


MARKER = b"\x1eqemu-sdei:0123456789abcdef:shell\x1e"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"hello", b"hello"),
        (b"a\r\n" + MARKER + b"\r\nb", b"a\r\nb"),
        (MARKER + b"\n" + MARKER + b"\r\r\nb\n", b"b\n"),
        (MARKER + b"no line end", b"no line end"),
        (b"a\x1eb\x1ec", b"a\x1eb\x1ec"),
        (b"\x1eqemu-sdei:" + b"x" * 200, b"\x1eqemu-sdei:" + b"x" * 200),
    ],
)
def test_markers_are_not_shown(data: bytes, shown: bytes) -> None:
    assert MarkerFilter().feed(data) == shown


@given(
    st.lists(st.sampled_from([b"text", b"\r\n", b"\x1e", b"qemu", MARKER, b"\x1eqemu-sdei:", b"\xff"])),
    st.integers(1, 9),
)
def test_what_is_shown_does_not_depend_on_the_pieces(parts: list[bytes], size: int) -> None:
    data = b"".join(parts) + b"." * 200
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    split = MarkerFilter()
    assert b"".join(split.feed(piece) for piece in pieces) == MarkerFilter().feed(data)
