"""The pure half of what a second terminal has: sessions at a console, the moment of `--since`, what is kept of ends."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from qemu_sdei import boundedlog, rundir_ended
from qemu_sdei.boundedlog import ConsoleLog
from qemu_sdei.cli.logs_command import moment
from qemu_sdei.cli.own_terminal import OwnTerminal
from qemu_sdei.cli.terminal import End, Session
from qemu_sdei.errors import UsageError
from qemu_sdei.guest.onlookers import Onlookers, Seat, Typist
from qemu_sdei.rundir_ended import Ended
from tests.guest.guests import until


class Guest:
    """A console that keeps what is typed."""

    def __init__(self, *, listening: bool = True, refused: str = "") -> None:
        self.typed = b""
        self.sizes: list[tuple[int, int]] = []
        self.listening, self.refused, self.over = listening, refused, False

    def write(self, data: bytes) -> bool:
        self.typed += b"" if self.refused else data
        return not self.refused

    def backlog(self) -> int:
        return 0

    def listens(self) -> bool:
        return self.listening

    def end_input(self, line_ended: bool) -> None:
        self.over = True

    def ended(self) -> bool:
        return self.over

    def lost_words(self) -> str:
        return self.refused

    def size(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))


class Screen:
    """A terminal at standard input and error of this process, and a session there in another thread."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.shown = b""

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def shows(self, text: bytes) -> bool:
        while text not in self.shown:
            self.shown += os.read(self.master, 4096)
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    master, slave = os.openpty()
    with os.fdopen(slave, "r", closefd=False) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield Screen(master)
    os.close(slave)
    os.close(master)


@contextmanager
def shown_there(fd: int) -> Iterator[None]:
    """What this process shows goes to the terminal `fd`."""
    sys.stdout.flush()
    saved = [os.dup(number) for number in (1, 2)]
    for number in (1, 2):
        os.dup2(fd, number)
    try:
        yield
    finally:
        for number, before in zip((1, 2), saved, strict=True):
            os.dup2(before, number)
            os.close(before)


def run(screen: Screen, guest: Guest, typed: list[bytes], *, asks: bool = True, typing: bool = True) -> End:
    """How a session ends in which that is typed, one after the other when the one before was taken."""
    session = Session(asks=asks)

    def type_all() -> None:
        for data in typed:
            screen.send(data)
            if data == b"\x1d" and asks:
                screen.shows(b"any other key: back")
                screen.shown = b""

    typist = threading.Thread(target=type_all, daemon=True)
    threading.Timer(0.3, typist.start).start()
    try:
        with shown_there(sys.stdin.fileno()):
            return session.run(guest, typing=typing)
    finally:
        session.close()


@pytest.mark.parametrize(
    ("typed", "end", "reached"),
    [
        ([b"ab", b"\x1d", b"d"], End.DETACHED, b"ab"),
        ([b"ab", b"\x1d", b"Q"], End.QUIT, b"ab"),
        ([b"\x1d", b"x", b"cd", b"\x1d\x1d", b"\x1d", b"q"], End.QUIT, b"cd\x1d"),
    ],
)
def test_what_ends_a_guest_is_asked_first(screen: Screen, typed: list[bytes], end: End, reached: bytes) -> None:
    guest = Guest()
    assert run(screen, guest, typed) is end
    assert guest.typed == reached


def test_the_key_that_leaves_another_ones_guest_asks_nothing(screen: Screen) -> None:
    guest = Guest()
    assert run(screen, guest, [b"ab\x1dxx"], asks=False) is End.DETACHED
    assert guest.typed == b"ab"


def test_who_looks_on_types_nothing(screen: Screen) -> None:
    guest = Guest()
    assert run(screen, guest, [b"ab\x1d"], asks=False, typing=False) is End.DETACHED
    assert guest.typed == b""


def test_who_lost_the_console_is_told_once(screen: Screen) -> None:
    guest = Guest(refused="somebody else types")
    assert run(screen, guest, [b"ab", b"cd\x1d"], asks=False) is End.DETACHED
    assert screen.shows(b"[qemu-sdei] somebody else types")


def test_what_is_typed_before_anybody_reads_is_kept(screen: Screen) -> None:
    guest = Guest(listening=False)

    def boots() -> None:
        guest.listening = True
        until("it is typed", lambda: guest.typed == b"uname\r")
        guest.over = True

    threading.Timer(0.8, boots).start()
    assert run(screen, guest, [b"uname\r"]) is End.ENDED


def test_a_terminal_is_raw_while_it_is_ours(screen: Screen) -> None:
    import termios

    before = termios.tcgetattr(sys.stdin.fileno())
    with OwnTerminal(sys.stdin.fileno()) as terminal:
        assert terminal.look()
        assert termios.tcgetattr(sys.stdin.fileno()) != before
        assert terminal.raw
    assert termios.tcgetattr(sys.stdin.fileno()) == before


def test_a_file_is_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, OwnTerminal(file.fileno()) as terminal:
        assert not terminal.there
        assert not terminal.look()


NOW = datetime(2026, 11, 30, 14, 5, 0).astimezone().timestamp()


@pytest.mark.parametrize(
    ("text", "seconds_ago"),
    [("90", 90), ("90s", 90), ("1.5s", 1.5), ("10m", 600), ("2h", 7200), ("1d", 86400), ("250ms", 0.25),
     ("14:00", 300), ("14:04:30", 30), ("2026-11-30T14:05", 0), ("2026-11-30 13:05", 3600)],
)  # fmt: skip
def test_when_since_means(text: str, seconds_ago: float) -> None:
    assert moment(text, NOW) == pytest.approx(NOW - seconds_ago)


@pytest.mark.parametrize("text", ["", "yesterday", "25:00", "-5", "10 weeks", "9999999999999s", "\x1b[m"])
def test_what_since_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="not understood"):
        moment(text, NOW)


def test_where_in_a_log_a_moment_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    path = tmp_path / "console.log"
    assert boundedlog.position(path, 5) == 0
    log = ConsoleLog(path)
    for text in (b"one\n", b"two\n", b"three\n"):
        log.write(text)
        clock[0] += 10
    log.close()
    assert [boundedlog.position(path, when) for when in (0, 1000, 1001, 1015, 1020, 1021)] == [0, 0, 4, 8, 8, 14]
    path.with_name(path.name + boundedlog.TIMES).write_bytes(b"damaged")
    assert boundedlog.position(path, 1) == 14, "nothing is known to be later"


def test_what_is_kept_of_ends(runtime: Path) -> None:
    from qemu_sdei.rundir import RunDirectory

    (runtime / "qemu-sdei").mkdir(mode=0o700)
    rundir_ended.keep(Ended("box", 3, "it ended"), b"x" * rundir_ended.CONSOLE + b"end")
    assert rundir_ended.find("box") == Ended("box", 3, "it ended")
    assert rundir_ended.console("box").read_bytes()[-4:] == b"xend"
    assert rundir_ended.console("box").stat().st_size == rundir_ended.CONSOLE
    for name in ("../box", "", "other", ".ended"):
        assert rundir_ended.find(name) is None
    for number in range(rundir_ended.KEPT + 5):
        rundir_ended.keep(Ended(f"b{number}", 0, ""), b"")
    assert len(list((runtime / "qemu-sdei" / rundir_ended.FOLDER).glob("*.json"))) == rundir_ended.KEPT
    (runtime / "qemu-sdei" / rundir_ended.FOLDER / "b9.json").write_text('{"status": 999}')
    assert rundir_ended.find("b9") is None
    RunDirectory.create("b10").remove()
    assert rundir_ended.find("b10") is None, "the name is another guest's now"


def test_one_types_and_the_next_must_take_it() -> None:
    seat = Seat()
    one, other = Typist("1", "one"), Typist("2", "other")
    assert seat.take(one, force=False) is None
    assert seat.take(other, force=False) == one
    assert seat.take(other, force=True) is None
    seat.leave("1")
    assert seat.has("2")
    seat.leave("2")
    assert seat.typist is None
    assert seat.take(one, force=False) is None


def test_everybody_gets_the_same_bytes() -> None:
    onlookers = Onlookers()
    first, more = bytearray(), bytearray()
    onlookers(b"lost")
    onlookers.first(first.extend)
    sink = more.extend
    onlookers.add(sink)
    onlookers(b"a")
    onlookers.first(None)
    onlookers(b"b")
    onlookers.remove(sink)
    onlookers(b"c")
    assert (bytes(first), bytes(more)) == (b"a", b"ab")
