"""The debug log: what is shown of a message, to whom, and that nobody pays for it who does not look."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei import message_log
from qemu_sdei.message_log import CONTROL, LIMIT, MIGRATION, NAMES, QMP, Entry, heard_by, repeat, shown
from qemu_sdei.migration.remote_link import CONTROL as CHANNEL
from qemu_sdei.migration.remote_link import Link, RefusedError, greet

TOKEN = "correct-horse-battery"


class Unread(Mapping[str, Any]):
    """A message that nobody may look at."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError

    def __iter__(self) -> Iterator[str]:
        raise AssertionError

    def __len__(self) -> int:
        raise AssertionError

    def __str__(self) -> str:
        raise AssertionError


def test_nothing_is_formatted_while_nobody_listens() -> None:
    assert not message_log.wanted()
    for log in (QMP, CONTROL, MIGRATION):
        log.sent("a", Unread())
        log.received("a", Unread())


def test_programs_use_standard_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "qemu_sdei"):
        assert message_log.wanted()
        QMP.sent("demo", {"execute": "stop"})
        CONTROL.received("backend of demo", {"ok": True})
        MIGRATION.received("other host", "(it has hung up)")
    assert caplog.record_tuples == [
        ("qemu_sdei.qmp", logging.DEBUG, 'demo -> {"execute": "stop"}'),
        ("qemu_sdei.control", logging.DEBUG, 'backend of demo <- {"ok": true}'),
        ("qemu_sdei.migration", logging.DEBUG, "other host <- (it has hung up)"),
    ]


def test_one_logger_alone(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "qemu_sdei.qmp"):
        CONTROL.sent("a", Unread())
        QMP.sent("a", {})
    assert [record.name for record in caplog.records] == ["qemu_sdei.qmp"]


@pytest.mark.parametrize(
    "message",
    [
        {"qemu-sdei": 1, "channel": "control", "token": TOKEN},
        {"ok": True, "name": "b", "session": TOKEN},
        {"cmd": "migrate-to", "to": {"kind": "tcp", "token": TOKEN}},
        {"cmd": "offer", "files": [{"shell": TOKEN}], "nonce": TOKEN},
        {"execute": "set_password", "arguments": {"protocol": "vnc", "password": TOKEN}},
        {"execute": "object-add", "arguments": {"qom-type": "secret", "id": "s", "data": TOKEN}},
    ],
)
def test_secrets_are_not_shown(message: dict[str, Any]) -> None:
    text = shown(message)
    assert TOKEN not in text
    assert message_log.HIDDEN in text


def test_a_token_on_its_way_to_another_host(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in what this side says nor in what the other one repeats."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(reader, writer)
        hello = await link.receive()
        assert hello["token"] == TOKEN
        await link.send({"ok": False, "error": "not here", "token": TOKEN})
        await link.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()
            link = Link(*await asyncio.open_connection(host, port))
            with pytest.raises(RefusedError, match="not here"):
                await greet(link, CHANNEL, TOKEN, 10)
            await link.close()

    with caplog.at_level(logging.DEBUG, "qemu_sdei.migration"):
        asyncio.run(run())
    assert len(caplog.messages) == 4  # each side's two
    assert '"error": "not here"' in caplog.text
    assert TOKEN not in caplog.text


def test_a_long_message_is_cut_and_its_length_said() -> None:
    message = {"x": "y" * 10_000}
    assert shown(message).endswith(f"yyy... ({len(json.dumps(message))} characters)")
    assert len(shown(message)) < LIMIT + 40


@given(st.text())
def test_control_characters_do_not_get_through(text: str) -> None:
    for message in (text, {text: text}, {"error": {"desc": f"\x1b]0;x\x07{text}\n\x7f"}}):
        assert shown(message).isprintable()


def test_what_is_no_message_harms_nobody() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert shown(endless) == "(a message that cannot be shown)"
    assert shown({"fd": object()}).startswith('{"fd": "<object')
    assert shown({1: 2, ("a",): 3}) == "(a message that cannot be shown)"


def test_listeners_hear_it_until_they_go() -> None:
    heard: list[Entry] = []
    with heard_by(heard.append):
        QMP.sent("a", {"execute": "cont"})
    QMP.sent("a", {"execute": "stop"})
    assert [(entry.logger, entry.text) for entry in heard] == [("qemu_sdei.qmp", 'a -> {"execute": "cont"}')]


def test_what_another_process_has_noted(caplog: pytest.LogCaptureFixture) -> None:
    entry = {"time": 1.5, "logger": "qemu_sdei.qmp", "text": "a <- \x1b[2J" + "y" * 10_000}
    with caplog.at_level(logging.DEBUG, "qemu_sdei"):
        repeat(entry)
        for wrong in (None, "x", {}, entry | {"logger": "root"}, entry | {"time": "now"}, entry | {"logger": ["x"]}):
            repeat(wrong)
    (record,) = caplog.records
    assert (record.name, record.created, record.msecs) == ("qemu_sdei.qmp", 1.5, 500)
    assert record.getMessage().startswith("a <- \\x1b[2Jy")
    assert len(record.getMessage()) < LIMIT + 40
    assert set(NAMES) == {"qemu_sdei.qmp", "qemu_sdei.control", "qemu_sdei.migration"}
