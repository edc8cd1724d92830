"""Waiting for console text: split, lost, flooded, panicking."""

from __future__ import annotations

import itertools
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.cli import terminal
from qemu_sdei.errors import GuestError, GuestPanicError, GuestTimeoutError, LostGuestError
from qemu_sdei.guest import shell
from qemu_sdei.guest.guest_console import GuestConsole
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.vm.console import LIMIT, Console
from qemu_sdei.vm.options import GuestOptions

PANIC = (
    b"[    1.5] Kernel panic - not syncing: VFS\r\n[    1.6] CPU: 0\r\n"
    b"[    1.7] ---[ end Kernel panic - not syncing: VFS ]---"
)


def later(work: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(0.05, work)
    timer.start()
    return timer


def test_text_that_is_there_and_text_that_comes() -> None:
    console = Console()
    console.feed(b"one two\r\nthr")
    match, position = console.search("two", 0, 1)
    assert match[0] == "two"
    later(lambda: console.feed(b"ee\r\n"))
    match, position = console.search(r"^three$", position, 10)
    assert console.since(position)[0] == "\n"


def test_what_was_found_is_not_found_again() -> None:
    console = Console()
    console.feed(b"x=1\nx=2\n")
    first, position = console.search(r"x=(\d)", 0, 1)
    second, position = console.search(r"x=(\d)", position, 1)
    assert (first[1], second[1]) == ("1", "2")
    with pytest.raises(GuestTimeoutError, match=r"'x=\(.*did not come within 0.05 s"):
        console.search(r"x=(\d)", position, 0.05)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_pieces_make_no_difference(data: bytes, cuts: list[int]) -> None:
    whole, pieces = Console(), Console()
    whole.feed(data)
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in itertools.pairwise(edges):
        pieces.feed(data[start:end])
    assert pieces.text == whole.text
    assert pieces.panicked == whole.panicked


def test_line_ends_of_tty_and_kernel_become_newlines() -> None:
    console = Console()
    for piece in (b"a\r\n", b"b\r\r\n", b"c\r", b"\nd\re\r\r", b"\n"):
        console.feed(piece)
    assert console.text == "a\nb\nc\nd\re\n"


def test_what_is_no_utf8_is_shown_as_such() -> None:
    console = Console()
    console.feed(b"\xff\xc3")
    console.feed(b"\xa4\n")
    assert console.text == "�ä\n"


def test_a_flood_is_forgotten_and_positions_stay_true() -> None:
    console = Console(limit=1000)
    for number in range(1000):
        console.feed(b"line %d\n" % number)
    assert len(console.text) <= 1250
    assert console.text.endswith("line 999\n")
    assert console.end == sum(len(f"line {n}\n") for n in range(1000))
    match, position = console.search("line 999", 0, 1)
    assert position == console.end - 1
    assert match.string is not None
    assert console.since(0)[1] == console.end


def test_last_lines_are_fit_to_be_shown() -> None:
    console = Console()
    console.feed(b"first\n\n\x1b[2Jsecond\x07\n\x1eqemu-sdei:ab:begin\x1e\n" + b"x" * 10_000)
    assert console.last_lines(2)[0] == "[2Jsecond"
    assert len(console.last_lines()[-1]) <= 300


def test_a_panic_ends_a_wait_and_is_shown() -> None:
    console = Console()
    later(lambda: console.feed(PANIC))
    with pytest.raises(GuestPanicError, match="Kernel panic - not syncing: VFS") as error:
        console.search("login:", 0, 30, what="the login")
    assert "the login" in error.value.message
    assert any("CPU: 0" in line for line in error.value.console)


def test_a_panic_that_is_expected_is_no_error() -> None:
    console = Console()
    console.feed(PANIC)
    _, position = console.search("Kernel panic", 0, 1)
    console.search("end Kernel panic", position, 1)


def test_a_panic_that_stops_in_the_middle_is_told_too() -> None:
    console = Console()
    console.feed(b"Kernel panic - not syncing: oops\n")
    with pytest.raises(GuestPanicError):
        console.search("never", 0, 30)


@pytest.mark.parametrize(
    "text", [b"echo Kernel panic - not syncing\n", b"no kernel panic here\n", b"Kernel panic - not syncing"]
)
def test_what_is_no_panic(text: bytes) -> None:
    console = Console()
    console.feed(text)
    assert not console.panicked


@pytest.mark.parametrize("prefix", [b"", b"[    1.234567] ", b"[   12.345678][    T1] ", b"[    0.1] [C0] "])
def test_printk_prefixes(prefix: bytes) -> None:
    console = Console()
    console.feed(b"before\n" + prefix + b"Kernel panic - not syncing: x\n")
    assert console.panicked


def test_a_reset_makes_a_panic_history() -> None:
    console = Console()
    console.feed(PANIC + b"\n")
    console.forget_panic()
    console.feed(b"booting again\n")
    console.search("booting", console.end - 14, 1)
    with pytest.raises(GuestTimeoutError):
        console.search("never", 0, 0.05)


BOOT = b"[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x410fd083]\n[    0.000000] Linux version 6.1\n"


@pytest.mark.parametrize(
    ("log", "reset_at", "over"),
    [
        (PANIC + b"\n", -1, True),
        (BOOT + PANIC + b"\n", -1, True),
        (BOOT + PANIC + b"\n" + BOOT, -1, False),
        (BOOT + PANIC + b"\n" + BOOT + PANIC + b"\n", -1, True),
        (PANIC + b"\nfirmware\n", len(PANIC), False),
        (b"firmware\n" + PANIC + b"\n", 3, True),
    ],
)
def test_a_panic_in_what_was_printed_before_the_guest_came_here(log: bytes, reset_at: int, over: bool) -> None:
    """By migration, from a directory, from an owner that was killed. If it goes on after its panic, so do waits."""
    console = Console()
    console.recall(log, reset_at=reset_at)
    assert console.panicked is over
    with pytest.raises(GuestPanicError if over else GuestTimeoutError):
        console.search("never", 0, 0.05)
    console.feed(PANIC + b"\n")
    assert console.panicked, "what comes then is news"


def test_an_oops_is_information() -> None:
    console = Console()
    console.feed(b"[  1.0] Internal error: Oops: 96000004\n[  1.1] BUG: something\n")
    assert console.oopses == 2
    assert not console.panicked


def test_silence_ends_a_wait() -> None:
    console = Console()
    console.feed(b"Booting Linux\n")
    with pytest.raises(GuestTimeoutError, match=r"printed nothing for 0.1 s while waiting for the shell") as error:
        console.search("never", 0, 30, what="the shell", stall=0.1)
    assert error.value.console == ["Booting Linux"]


def test_the_end_of_the_guest_ends_a_wait() -> None:
    console = Console()
    console.feed(b"bye\n")

    def lost() -> GuestError:
        return LostGuestError("QEMU was killed by SIGKILL")

    later(lambda: console.close(lost))
    with pytest.raises(LostGuestError, match="SIGKILL while waiting for console text"):
        console.search("never", 0, 30)
    console.search("bye", 0, 1)  # what it said before is still there


def test_a_wait_can_be_broken_off() -> None:
    console = Console()
    later(lambda: console.feed(b"x"))
    with pytest.raises(KeyError):
        console.search("never", 0, 30, abort=lambda: KeyError("reset") if console.text else None)


def test_a_pattern_may_be_compiled() -> None:
    console = Console()
    console.feed(b"One\n")
    assert console.search(re.compile("one", re.IGNORECASE), 0, 1)[0][0] == "One"


@pytest.mark.not_quick
def test_a_guest_that_prints_byte_by_byte_takes_no_more_memory_than_its_text() -> None:
    console = Console(limit=100_000)
    console.feed(b"x")
    tracemalloc.start()
    try:
        for _ in range(50_000):
            console.feed(b"ab")  # nobody reads: nothing is joined for a reader
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 500_000
    assert console.text == "x" + "ab" * 50_000


class Talker(GuestConsole):
    """A guest whose command prints on and on."""

    def __init__(self) -> None:
        self.record = GuestRecord(GuestOptions(command=["yes"]))
        self.record.placement = SimpleNamespace(plan=None)  # type: ignore[assignment]
        super().__init__(self.record)

    def write(self, text: str | bytes) -> None: ...

    @property
    def resets(self) -> list[dict[str, Any]]:
        return []

    @property
    def reset_count(self) -> int:
        return 0

    def _kernels(self) -> int | None:
        return 1

    def _follow(self, position: int = 0) -> Iterator[tuple[str, int]]:
        for text in self._words():
            position += len(text)
            yield text, position

    def _words(self) -> Iterator[str]:
        yield shell.marker(self.record.nonce, "begin") + "\n"
        for number in range(3 * LIMIT // 1000):
            yield f"{number:08}".ljust(999) + "\n"
        yield shell.marker(self.record.nonce, "exit:3")


def test_of_a_command_that_prints_much_the_end_is_kept_and_all_is_shown() -> None:
    shown = 0

    def show(text: str) -> None:
        nonlocal shown
        shown += len(text)

    result = Talker().wait_command(show)
    assert result.status == 3
    assert shown == 3 * LIMIT // 1000 * 1000
    assert len(result.output) == LIMIT
    assert result.output[-1000:].startswith(f"{3 * LIMIT // 1000 - 1:08}")


def test_a_terminal_that_takes_nothing_has_the_newest_kept() -> None:
    waiting = terminal._Output()
    try:
        for number in range(3 * terminal._BACKLOG // 1000):
            waiting.put(b"%08d" % number + b"." * 992)
        data = waiting.take()
    finally:
        waiting.close()
    assert len(data) == terminal._BACKLOG
    assert data[-1000:].startswith(b"%08d" % (3 * terminal._BACKLOG // 1000 - 1))
