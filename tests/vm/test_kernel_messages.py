"""What a guest's kernel says of itself: panics that are followed, kernels that others start, text that is forged."""

from __future__ import annotations

import random
import threading

import pytest

from qemu_sdei.errors import GuestPanicError, GuestTimeoutError, LostGuestError
from qemu_sdei.guest.shell import OutputStream, marker
from qemu_sdei.vm.console import Console
from qemu_sdei.vm.kernel_messages import KernelWords

PANIC = b"[    1.500000] Kernel panic - not syncing: VFS\r\n[    1.600000] CPU: 0\r\n"
KDUMP = PANIC + b"[    1.700000] Starting crashdump kernel...\r\n[    1.800000] Bye!\r\n"
BOOT = b"[    0.000000] Booting Linux on physical CPU 0x0000000002 [0x410fd083]\r\n"


def fed(*pieces: bytes, panic_ends: bool = False) -> Console:
    console = Console(panic_ends=panic_ends)
    for piece in pieces:
        console.feed(piece)
    return console


def test_a_panic_is_followed_by_what_comes_after() -> None:
    console = fed(b"shell\r\n", KDUMP)
    assert console.panicked
    threading.Timer(0.05, lambda: console.feed(BOOT + b"login:")).start()
    console.search("login:", 0, 30)
    assert not console.panicked, "another kernel runs"
    assert (console.left, console.begun) == (len("shell\n"), console.text.index("[    0.000000]"))


@pytest.mark.parametrize("panic_ends", [True, False])
def test_a_panic_is_waited_for_and_told_once(panic_ends: bool) -> None:
    console = Console(panic_ends=panic_ends)
    threading.Timer(0.05, lambda: console.feed(KDUMP)).start()
    panic = console.wait_panic(0, 30)
    assert (panic.message, panic.position) == ("VFS", 0)
    assert panic.lines[1] == "[    1.600000] CPU: 0"
    console.taken(panic)
    assert not console.panicked
    with pytest.raises(GuestTimeoutError):
        console.search("never", 0, 0.01)
    with pytest.raises(GuestTimeoutError, match="kernel panic did not come within"):
        console.wait_panic(panic.position + 1, 0.01)


def test_two_panics_in_a_row_are_two() -> None:
    console = fed(
        KDUMP, BOOT, PANIC.replace(b"VFS", b"again"), b"[    1.9] ---[ end Kernel panic - not syncing: x ]---"
    )
    first = console.wait_panic(0, 1)
    assert (first.message, console.wait_panic(first.position + 1, 1).message) == ("VFS", "again")


def test_a_panic_in_a_panic_is_one() -> None:
    console = fed(PANIC, PANIC, KDUMP)
    assert [panic.message for panic in console.words.panics] == ["VFS"]


def test_a_guest_that_ends_by_its_panic() -> None:
    console = fed(PANIC)
    console.close(lambda: LostGuestError("QEMU ended"))
    with pytest.raises(GuestPanicError, match="VFS"):
        console.search("never", 0, 1)


def test_a_guest_that_ends_without_a_panic() -> None:
    console = fed(b"x")
    console.close(lambda: LostGuestError("QEMU ended"))
    with pytest.raises(LostGuestError, match="QEMU ended while waiting for a kernel panic"):
        console.wait_panic(0, 1)


def test_the_shell_prompt_does_not_hide_a_panic() -> None:
    """A handler panics while the shell waits: no line end comes between."""
    console = fed(b"guest# \x1b[6n", PANIC)
    assert console.wait_panic(0, 5).message == "VFS"


def test_an_old_log_that_is_printed_is_no_news_once_the_shell_answers() -> None:
    console = fed(b"begin\r\n", KDUMP)
    assert not console.replaced_since(0), "neither silence nor another kernel"
    console.alive(console.end)
    assert not console.panicked
    console.feed(BOOT)  # dmesg
    assert console.begun == -1


def test_a_kernel_that_is_replaced_in_silence() -> None:
    """The console alone cannot tell it from an old log; the firmware counts kernels."""
    console = fed(BOOT, b"guest# \x1b[6n", BOOT, b"[    0.000000] Linux version\r\n")
    claim = console.text.index("[    0.0", 10)
    assert (console.claimed, console.begun, console.silent_panic(0)) == (claim, -1, None)
    console.replaced(claim)
    assert (console.left, console.begun) == (claim, claim)
    panic = console.silent_panic(0)
    assert panic is not None
    assert (panic.message, panic.position, panic.lines[1]) == ("", claim, "[    0.000000] Linux version")
    assert console.silent_panic(claim + 1) is None


def test_the_boot_after_a_reset_is_no_claim() -> None:
    console = fed(BOOT)
    console.forget_panic()
    console.feed(BOOT)
    assert console.claimed == -1


def test_what_a_shell_said_before_the_panic_proves_nothing() -> None:
    console = fed(b"shell\r\n", KDUMP)
    console.alive(3)
    assert console.panicked


def test_a_boot_without_departure_is_an_old_log() -> None:
    assert fed(BOOT, BOOT).begun == -1


@pytest.mark.parametrize(
    "text", [b"Bye!\n", b"echo Bye!\n", b"[    1.0] Bye! Bye!\n", b"Booting Linux on physical CPU 0x0\n"]
)
def test_what_is_no_departure(text: bytes) -> None:
    console = fed(text, BOOT)
    assert (console.left, console.begun) == (0, -1)


def test_any_words_in_any_pieces_are_borne() -> None:
    """A forger gains nothing but bounded lists."""
    source = random.Random(3)
    words = [
        KDUMP,
        BOOT,
        PANIC,
        b"[    0.000000] ",
        b"Kernel panic - not syncing",
        b"\n",
        b"[",
        b"BUG: ",
        b"Bye!",
        b"\xff",
    ]
    console = Console(limit=5000, panic_ends=False)
    for _ in range(3000):
        piece = b"".join(source.choices(words, k=4))
        console.feed(piece[: source.randrange(1, 60)])
        console.replaced_since(source.randrange(console.end + 1))
    assert len(console.words.panics) <= 64
    for panic in console.words.panics:
        assert len(panic.message) <= 300
    assert len(console.wait_panic(0, 1).lines) <= 40


def test_pieces_make_no_difference() -> None:
    data = (b"guest# " + KDUMP + BOOT + b"x\n" + PANIC).replace(b"\r", b"").decode()
    whole = KernelWords()
    whole.feed(data, 0)
    for size in (1, 7, 50):
        words = KernelWords()
        for at in range(0, len(data), size):
            words.feed(data[at : at + size], at)
        assert (words.panics, words.left, words.begun) == (whole.panics, whole.left, whole.begun)


def test_a_command_is_followed_into_the_next_kernel() -> None:
    begin, end = marker("ab", "begin") + "\n", marker("ab", "exit:3")
    stream = OutputStream("ab")
    assert stream.feed(f"log\n{begin}one\n") == "one\n"
    stream.boots_again()
    assert stream.feed("boots\n") == ""
    assert stream.log == "boots\n"
    assert stream.feed(f"{begin}two\n{end}") == "two\n"
    assert stream.status == 3


def test_a_command_that_prints_an_old_log_ends_all_the_same() -> None:
    stream = OutputStream("ab")
    stream.feed(marker("ab", "begin") + "\n")
    stream.boots_again()
    stream.feed("[    0.000000] Booting Linux\n" + marker("ab", "exit:0"))
    assert stream.status == 0
