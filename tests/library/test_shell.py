"""Commands typed at a shell: their output is found among echo and kernel messages. A real shell answers."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pexpect
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qemu_sdei
from qemu_sdei.guest.shell import OutputStream, marker, parse_reply, ready_pattern, reply_pattern, request

NONCE = "0123abcd"


PROFILE = Path(qemu_sdei.__file__).parent / "data" / "profile"


def shell(*commands: str) -> str:
    """What a host's `sh -i` on a terminal, given the lines for `commands`, shows: prompt, echo, output, markers."""
    terminal = pexpect.spawn(
        "sh", ["-i"], env=os.environ | {"ENV": str(PROFILE)}, encoding="utf-8", codec_errors="replace"
    )
    shown = ""
    with terminal:
        for command in commands:
            first, *rest = request(command, NONCE)
            terminal.send(first + "\r")
            for pattern, lines in ((ready_pattern(NONCE), rest), (reply_pattern(NONCE), [])):
                terminal.expect(pattern, timeout=30)
                shown += f"{terminal.before}{terminal.after}"
                terminal.send("".join(line + "\r" for line in lines))
    return shown.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("echo hello", 0, "hello\n"),
        ("printf 'no newline'", 0, "no newline"),
        ("echo a; echo b >&2; false", 1, "a\nb\n"),
        ("true", 0, ""),
        ("(exit 42)", 42, ""),
        ("echo 'it'\"'\"'s' \"$((1+1))\" '$HOME' \\\\ \\#", 0, "it's 2 $HOME \\ #\n"),
        ("cat", 0, ""),
        ("cat <<X\nline 1\nline 2\nX\n", 0, "line 1\nline 2\n"),
        ("echo ä ✓", 0, "ä ✓\n"),
        ("nonexistent-command 2>/dev/null", 127, ""),
    ],
)
def test_output_and_status(command: str, status: int, output: str) -> None:
    result = parse_reply(shell(command), NONCE)
    assert result is not None
    assert (result.status, result.output) == (status, output)


def test_a_syntax_error_is_a_status_too() -> None:
    result = parse_reply(shell("if"), NONCE)
    assert result is not None
    assert result.status == 2
    assert "yntax error" in result.output


def test_the_shell_keeps_what_a_command_set() -> None:
    result = parse_reply(shell("cd /; X=kept", 'pwd; echo "$X"'), NONCE)
    assert result is not None
    assert result.output == "/\nkept\n"


def test_no_line_is_longer_than_the_guests_terminal_takes() -> None:
    lines = request("x" * 20_000, NONCE)
    assert max(map(len, lines)) < 1000
    result = parse_reply(shell("echo " + "x" * 20_000), NONCE)
    assert result is not None
    assert len(result.output) == 20_001


def test_the_echo_of_the_request_is_no_reply() -> None:
    echo = "\n".join(request("echo hi", NONCE))
    assert parse_reply(echo, NONCE) is None
    assert parse_reply(echo + shell("echo hi"), NONCE) is not None


def test_another_commands_markers_are_not_ours() -> None:
    assert parse_reply(shell("echo hi").replace(NONCE, "other"), NONCE) is None


KERNEL = "[   12.345678] psci: CPU1 killed (polled 0 ms)\n"


@pytest.mark.parametrize("at", range(1, 28, 3))
def test_a_kernel_message_in_the_middle_of_a_marker(at: int) -> None:
    text = shell("echo hi")
    begin, end = marker(NONCE, "begin"), marker(NONCE, "exit:0")
    text = text.replace(begin, begin[:at] + KERNEL + begin[at:], 1)
    text = text.replace(end, end[:at] + KERNEL + end[at:], 1)
    result = parse_reply(text, NONCE)
    assert result is not None
    assert result.status == 0
    assert result.output.splitlines()[0] == "hi"


def test_kernel_messages_in_the_output_stay() -> None:
    begin, end = marker(NONCE, "begin"), marker(NONCE, "exit:0")
    result = parse_reply(f"{begin}\n{begin}\n{KERNEL}out\n\n{end}\n", NONCE)
    assert result is not None
    assert result.output == KERNEL + "out\n"


@given(st.text(max_size=50), st.text(max_size=200), st.integers(0, 255), st.lists(st.integers(0, 400), max_size=8))
def test_a_stream_in_pieces_gives_the_commands_output(before: str, output: str, status: int, cuts: list[int]) -> None:
    text = f"{before}{marker(NONCE, 'begin')}\n{output}{marker(NONCE, f'exit:{status}')}\nafter"
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    stream = OutputStream(NONCE)
    log = ""
    out = ""
    for start, end in itertools.pairwise(edges):
        out += stream.feed(text[start:end])
        log += stream.log
    assert log == before
    assert (out, stream.status) == (output, status)


def test_a_stream_holds_back_only_what_may_be_a_marker() -> None:
    stream = OutputStream(NONCE)
    assert stream.feed(f"log\n{marker(NONCE, 'begin')}\nhello") == "hello"
    assert stream.feed(" \x1eworld" + "x" * 200) == " \x1eworld" + "x" * 200
    assert stream.status is None
