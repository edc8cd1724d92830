"""Log files with a bound: what is kept of them, and what they say of the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_sdei import boundedlog
from qemu_sdei.boundedlog import CONSOLE_LIMIT, HEAD, LIMIT, TAIL, BoundedLog, ConsoleLog

LINE = 64


def line(number: int) -> bytes:
    return (b"line %08d " % number).ljust(LINE - 1, b".") + b"\n"


def marks(data: bytes) -> list[int]:
    return [int(count) for count in re.findall(rb"\[qemu-sdei: (\d+) bytes were cut here\]\n", data)]


def test_a_small_log_is_whole(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log")
    log.write(b"one\n")
    log.write(b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("at_once", [10, 100, 5000])
def test_a_log_keeps_its_beginning_and_its_end_and_says_what_was_cut(tmp_path: Path, at_once: int) -> None:
    log, path = BoundedLog(tmp_path / "log"), tmp_path / "log"
    total = 3 * LIMIT // LINE // at_once * at_once
    for start in range(0, total, at_once):
        log.write(b"".join(map(line, range(start, start + at_once))))
        assert path.stat().st_size <= LIMIT
    data = path.read_bytes()
    (cut,) = marks(data)
    lines = [text for text in data.splitlines(keepends=True) if not text.startswith(b"[qemu-sdei")]
    assert cut + LINE * len(lines) == LINE * total, "each byte is there, or counted"
    head = HEAD // LINE
    assert lines[:head] == [line(n) for n in range(head)]
    tail = lines[head:]
    assert len(tail) * LINE >= TAIL - LINE
    assert tail == [line(n) for n in range(total - len(tail), total)]


def test_bytes_without_any_line_end_are_bounded_too(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log")
    for _ in range(50):
        log.write(b"x" * 50_000)
    assert (tmp_path / "log").stat().st_size <= LIMIT
    assert marks((tmp_path / "log").read_bytes())


def test_two_who_write_one_log(tmp_path: Path) -> None:
    """An owner that adopts a guest, and the backend that has written for the one before."""
    logs = [BoundedLog(tmp_path / "log") for _ in range(2)]
    for number in range(3 * LIMIT // LINE // 2):
        logs[number % 2].write(line(number))
    data = (tmp_path / "log").read_bytes()
    assert len(data) <= LIMIT
    assert data.endswith(line(3 * LIMIT // LINE // 2 - 1))
    assert len(marks(data)) == 1


def test_a_log_that_others_append_to_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(map(line, range(4 * LIMIT // LINE))))
    boundedlog.cut(path)
    data = path.read_bytes()
    assert len(data) <= HEAD + TAIL + LINE
    assert data.startswith(line(0))
    assert data.endswith(line(4 * LIMIT // LINE - 1))
    boundedlog.cut(tmp_path / "not" / "there")


def test_a_pipe_that_nobody_reads_holds_nobody(tmp_path: Path) -> None:
    """QEMU has both ends: it never meets a pipe without a reader, and does not wait for one."""
    output, written = boundedlog.pipe()
    child = "import os, sys\nfor n in range(200):\n try: os.write(1, b'x' * 65536)\n except BlockingIOError: pass"
    subprocess.run([sys.executable, "-c", child], stdout=written, pass_fds=(output,), timeout=60, check=True)
    os.close(written)
    log = BoundedLog(tmp_path / "log")
    boundedlog.drain(output, log)
    assert boundedlog.take(output, log) is None
    assert 0 < (tmp_path / "log").stat().st_size <= LIMIT
    os.close(output)


def test_what_a_backend_prints_goes_to_its_log(tmp_path: Path) -> None:
    out, error = boundedlog.streams(tmp_path)
    for number in range(2 * LIMIT // LINE):
        print(line(number).decode(), end="", file=error)
    print("the last \udcff", file=out)
    data = (tmp_path / "backend.log").read_bytes()
    assert len(data) <= LIMIT
    assert data.endswith(b"the last \\udcff\n")
    assert (out.fileno(), error.fileno()) == (1, 2)


def test_the_console_log_keeps_the_beginning_and_says_that_there_was_more(tmp_path: Path) -> None:
    log = ConsoleLog(tmp_path / "log")
    for _ in range(CONSOLE_LIMIT // (1 << 16) + 3):
        log.write(b"x" * ((1 << 16) - 1))
    data = (tmp_path / "log").read_bytes()
    assert data.startswith(b"x" * CONSOLE_LIMIT)
    assert data[CONSOLE_LIMIT:].strip().startswith(b"[qemu-sdei: console.log is full")
    assert len(data) < CONSOLE_LIMIT + 200
