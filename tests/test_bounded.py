"""What JSON from outside becomes in memory is bounded by its text, and whatever it is, it is read or refused."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei import bounded

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@given(VALUES)
def test_what_is_no_bomb_is_read(value: object) -> None:
    assert bounded.loads(json.dumps(value).encode()) == value


@given(st.binary(max_size=200) | st.text('[]{}",:\\0aé').map(str.encode))
def test_anything_is_read_or_refused(data: bytes) -> None:
    try:
        bounded.loads(data)
    except ValueError:
        pass


MIB = 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"[]," * (2 * MIB) + b"0]",
        b"[" + b"{}," * (2 * MIB) + b"0]",
        b"[" + b"1.5," * (2 * MIB) + b"0]",
        b"[" + b'{"a":0},' * MIB + b"0]",
        b"[" * MIB,
        b'[{"a":' * MIB,
        b"[" * 33 + b"]" * 33,
        b"9" * MIB,
        b'["' + b"\\u00e9" * MIB + b"\xff",
        b'"' * MIB,
        b'"\\' * MIB,
    ],
    ids=range(11),
)
def test_bombs_are_refused_before_they_are_anything(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"."):
            bounded.loads(data)
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.not_quick
def test_the_most_that_is_read_is_a_small_multiple() -> None:
    half = bounded.MAX_CONTAINERS - 2
    data = b"[" + b"[]," * half + b"1.5," * (bounded.MAX_PARTS - half - 1) + b"0]"
    tracemalloc.start()
    try:
        bounded.loads(data)
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()


def test_brackets_in_texts_do_not_nest() -> None:
    assert bounded.loads(b'["' + b"[" * 100 + b'\\"{"]') == ["[" * 100 + '"{']
