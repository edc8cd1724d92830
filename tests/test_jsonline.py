"""JSON lines: what is a message, where it ends, and what becomes of a refusal."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei import bounded, jsonline
from qemu_sdei.errors import (
    BusyError,
    GuestError,
    LostGuestError,
    NotDeliveredError,
    ProtocolError,
    SdeiError,
    UsageError,
)

LIMIT = 2048
HOSTILE = [
    b"",
    b"no json",
    b"[1]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a": ' * 5000,
    b"{" * 40 + b"}" * 40,
    b'{"a": ' + b"9" * 10_000 + b"}",
    b'{"a": [' + b"[]," * (bounded.MAX_CONTAINERS + 1) + b"[]]}",
]


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_message_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^the word is not (a )?JSON( object)?$"):
        jsonline.decode(line, "the word")


def test_messages_are_nested_as_deep_as_they_may_and_no_deeper() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert jsonline.decode(nested(bounded.MAX_DEPTH))
    with pytest.raises(ProtocolError):
        jsonline.decode(nested(bounded.MAX_DEPTH + 1))


messages = st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans()))


@given(st.lists(messages), st.lists(st.integers(1, 40), min_size=1))
def test_a_stream_gives_the_same_messages_however_it_is_cut(sent: list[dict[str, Any]], sizes: list[int]) -> None:
    stream = b"".join(map(jsonline.encode, sent))
    lines = jsonline.Lines(1 << 20)
    found, at, turn = [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        lines.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
        while (line := lines.next()) is not None:
            found.append(jsonline.decode(line))
    assert found == sent
    assert not len(lines)


def test_a_line_without_end_is_not_waited_for() -> None:
    lines = jsonline.Lines(LIMIT, "the word")
    lines.feed(b"{}\n" + b"x" * (LIMIT + 1))
    assert lines.next() == b"{}"
    with pytest.raises(jsonline.TooLongError, match="the word has more than 2 KiB"):
        lines.next()
    lines.clear()
    assert lines.next() is None


def read(data: bytes, limit: int = LIMIT) -> dict[str, Any] | None:
    async def run() -> dict[str, Any] | None:
        reader = asyncio.StreamReader(limit=2 * LIMIT)
        reader.feed_data(data)
        reader.feed_eof()
        return await jsonline.read(reader, limit)

    return asyncio.run(run())


def test_a_stream_of_asyncio() -> None:
    assert read(b'{"a": 1}\n{"b": 2}\n') == {"a": 1}
    assert read(b"") is None
    assert read(b'{"a": 1}') is None, "whose end did not come"
    for size in (LIMIT, 3 * LIMIT):  # beyond the limit that is asked for; beyond that of the reader
        with pytest.raises(jsonline.TooLongError, match="more than 2 KiB"):
            read(b"x" * size + b"\n")
    with pytest.raises(ProtocolError, match="not JSON"):
        read(b"x\n")


@pytest.mark.parametrize(
    ("kinds", "raised", "kind", "caught"),
    [
        (jsonline.CONTROL, UsageError, "usage", UsageError),
        (jsonline.CONTROL, BusyError, "busy", BusyError),
        (jsonline.CONTROL, NotDeliveredError, "state", NotDeliveredError),
        (jsonline.CONTROL, ProtocolError, "internal", SdeiError),
        (jsonline.SUPERVISOR, UsageError, "usage", UsageError),
        (jsonline.SUPERVISOR, BusyError, "failed", GuestError),
        (jsonline.SUPERVISOR, LostGuestError, "failed", GuestError),
    ],
)
def test_a_refusal_is_the_same_exception_on_the_other_side(
    kinds: jsonline.Kinds, raised: type[SdeiError], kind: str, caught: type[SdeiError]
) -> None:
    answer = json.loads(jsonline.encode(kinds.refusal(raised("it is so"))))
    assert answer == {"ok": False, "error": {"kind": kind, "message": "it is so"}}
    with pytest.raises(caught, match=r"^it is so$") as error:
        kinds.result(answer, "the answer")
    assert type(error.value) is caught


def test_kinds_of_a_newer_program_are_told_all_the_same() -> None:
    for kinds, caught in ((jsonline.CONTROL, SdeiError), (jsonline.SUPERVISOR, GuestError)):
        with pytest.raises(caught, match="something else"):
            kinds.result(jsonline.refusal("strange", "something else"), "the answer")


@pytest.mark.parametrize(
    "answer",
    [{}, {"ok": True}, {"ok": True, "result": 5}, {"ok": False}, {"ok": False, "error": "x"}, {"ok": 1, "result": {}}],
)
def test_what_is_no_answer(answer: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="the answer to hello is not of the protocol's form"):
        jsonline.CONTROL.result(answer, "the answer to hello")


def test_a_result() -> None:
    assert jsonline.CONTROL.result(jsonline.success({"a": 1}), "the answer") == {"a": 1}
