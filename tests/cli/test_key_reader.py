"""Keys out of what a terminal sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.cli.key_reader import KeyReader


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"qip", ["q", "i", "p"]),
        (b"\x1b[A\x1bOB\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        (b"\t\x1b[Z\r", ["tab", "shift-tab", "enter"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1bOF\x1b[1~\x1b[4~", ["page-up", "page-down", "home", "end", "home", "end"]),
        (b"\x1b[1;5A", ["up"]),
        (b"\x1b[15~\x1b[?1;2c\x1b[<0;3;4M", []),
        (b"\x1bq", ["q"]),
        ("é".encode(), ["é"]),
        (b"\x1a\x0c", ["ctrl-z", "ctrl-l"]),
    ],
)
def test_keys(data: bytes, keys: list[str]) -> None:
    assert KeyReader().feed(data) == keys


def test_a_key_in_pieces() -> None:
    """Over a slow line a sequence comes byte by byte, and its letters are no keys."""
    reader = KeyReader()
    assert [reader.feed(bytes([byte])) for byte in b"\x1b[6~q"] == [[], [], [], ["page-down"], ["q"]]


@given(st.lists(st.binary(max_size=8), max_size=20))
def test_noise_is_taken_as_it_comes(pieces: list[bytes]) -> None:
    reader = KeyReader()
    for piece in pieces:
        assert all(isinstance(key, str) and key for key in reader.feed(piece))
    assert reader.feed(b"\x1b[A" * 2)[-1] == "up"
