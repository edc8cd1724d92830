"""The helper's client, against a helper that answers late, in pieces, or not at all."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import GuestTimeoutError, LostGuestError, UsageError
from qemu_sdei.guest.helper import MAX_COMMAND, Helper
from qemu_sdei.guest.shell import marker


def served(directory: Path, answer: Callable[[socket.socket, list[bytes]], None]) -> Helper:
    """A helper's client; `answer` is called with the connection and the words of the first request."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(directory / rundir.HELPER))
    listener.listen(1)

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                data = b""
                while data.count(b"\n") < 2:
                    data += connection.recv(4096)
                answer(connection, data.split())

    threading.Thread(target=serve, daemon=True).start()
    return Helper(directory, "guest")


def test_output_and_status_come_back_whatever_is_before_them(tmp_path: Path) -> None:
    asked = []

    def answer(connection: socket.socket, words: list[bytes]) -> None:
        nonce = words[0].decode()
        asked.append(base64.b64decode(words[2]).decode())
        text = f"{marker('0123456789abcdef', 'exit:9')}\nold\n{marker(nonce, 'begin')}\n"
        text += f"one\ntwo\n{marker(nonce, 'exit:3')}\n"
        for at in range(0, len(text), 7):
            connection.sendall(text[at : at + 7].encode())

    result = served(tmp_path, answer).run("cat 'ä'")
    assert (result.status, result.output) == (3, "one\ntwo")
    assert asked == ["cat 'ä'"]


def test_what_does_not_answer_is_given_up_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qemu_sdei.guest.helper._GRACE", 0.1)
    forever = threading.Event()

    def say_nothing(connection: socket.socket, words: list[bytes]) -> None:
        forever.wait(20)

    helper = served(tmp_path, say_nothing)
    with pytest.raises(GuestTimeoutError, match="helper in guest 'guest' did not answer"):
        helper.run("true", 0.1)
    forever.set()


def test_a_guest_that_ends_meanwhile_is_lost(tmp_path: Path) -> None:
    helper = served(tmp_path, lambda connection, words: connection.close())
    with pytest.raises(LostGuestError):
        helper.run("true")


def test_a_guest_without_one_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="start it with --ras"):
        Helper(tmp_path)


def test_a_command_that_no_terminal_takes_is_refused(tmp_path: Path) -> None:
    (tmp_path / rundir.HELPER).touch()
    with pytest.raises(UsageError, match=str(MAX_COMMAND)):
        Helper(tmp_path).run("x" * (MAX_COMMAND + 1))
