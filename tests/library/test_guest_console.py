"""The console side of a guest whose kernel panics, is replaced, or only seems to be: against a guest that is played."""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from qemu_sdei.errors import GuestPanicError, GuestTimeoutError, LostGuestError, UsageError
from qemu_sdei.guest.guest_console import GuestConsole
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.guest.shell import CommandResult, marker
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.plan import prepare

KDUMP = (
    b"[    1.500000] Kernel panic - not syncing: sysrq\r\n[    1.700000] Starting crashdump kernel...\r\n"
    b"[    1.800000] Bye!\r\n"
)
BOOT = b"[    0.000000] Booting Linux on physical CPU 0x0000000002 [0x410fd083]\r\n[    0.000000] more\r\n"


class Played(GuestConsole):
    """A guest whose shell answers each command with the next of `answers`: what is printed once it was taken, with
    {n} for the command's nonce.
    """

    def __init__(self, *answers: str, **options: Any) -> None:
        self.record = GuestRecord(GuestOptions(**{"on_panic": "continue", **options}))
        self.record.placement = SimpleNamespace(plan=SimpleNamespace(own_initramfs=True))  # type: ignore[assignment]
        super().__init__(self.record)
        self.answers = list(answers)
        self.kernels: int | None = 1
        self.happened: list[dict[str, Any]] = []

    @property
    def shell(self) -> bytes:
        return marker(self.record.nonce, "shell").encode() + b"\r\n"

    @property
    def resets(self) -> list[dict[str, Any]]:
        return self.happened

    @property
    def reset_count(self) -> int:
        return len(self.happened)

    def _kernels(self) -> int | None:
        return self.kernels

    def write(self, text: str | bytes) -> None:
        assert isinstance(text, str)
        if (match := re.match(r"_N=(\w+) ", text)) and self.answers:
            nonce = match[1]
            said = marker(nonce, "ready") + "\n" + self.answers.pop(0)
            said = said.replace("{begin}", marker(nonce, "begin") + "\n").replace("{end}", marker(nonce, "exit:0"))
            self.print(said.replace("{shell}", self.shell.decode()).encode())

    def print(self, data: bytes) -> None:
        self.console_text.feed(data)


def test_the_command_that_crashes_is_lost_and_the_next_one_finds_the_next_shell() -> None:
    guest = Played("{begin}" + (KDUMP + BOOT).decode(), "{begin}up\n{end}")
    guest.print(b"Booting Linux on physical CPU 0x0\r\n" + guest.shell)
    with pytest.raises(GuestPanicError, match="sysrq"):
        guest.run("crash")
    assert guest.expect_panic(1).message == "sysrq"
    threading.Timer(0.1, lambda: guest.print(guest.shell)).start()
    assert guest.run("uname") == CommandResult(0, "up")


def test_a_command_that_nobody_has_read_is_given_to_the_next_kernel() -> None:
    guest = Played((KDUMP + BOOT).decode() + "{shell}", "{begin}up\n{end}")
    guest.print(guest.shell)
    assert guest.run("uname") == CommandResult(0, "up")


def test_a_snapshot_of_another_run_and_its_reset_have_shells() -> None:
    """What was loaded prints the words of the run that saved it; what is booted next, those of this one."""
    guest = Played("{begin}up\n{end}", "{begin}up\n{end}")
    own = guest.shell
    guest.record.is_now("abcd")
    guest.record.is_now("abcd")
    guest.happened.append({"position": 0})
    assert not guest.booted
    guest.print(guest.shell)
    assert guest.booted
    assert guest.run("uname") == CommandResult(0, "up")
    guest.happened.append({"position": guest.console_text.end})
    guest.print(own)
    assert guest.run("uname") == CommandResult(0, "up")


def test_an_old_log_in_the_output_is_output() -> None:
    """What a capture kernel's user does first: look at the log of the kernel before."""
    guest = Played("{begin}" + KDUMP.decode() + "{end}", "{begin}" + BOOT.decode() + "{end}", "{begin}up\n{end}")
    guest.print(guest.shell)
    assert "Bye!" in guest.run("vmcore-dmesg").output
    assert "Booting Linux" in guest.run("dmesg").output
    assert guest.run("uname") == CommandResult(0, "up")
    assert not guest.console_text.panicked


def test_a_panic_ends_the_wait_of_who_did_not_ask_for_more() -> None:
    guest = Played(on_panic="end")
    guest.print(guest.shell + KDUMP + BOOT + guest.shell)
    with pytest.raises(GuestPanicError):
        guest.run("true")


@pytest.mark.parametrize("on_panic", ["end", "continue"])
def test_an_expected_panic_ends_nothing(on_panic: str) -> None:
    guest = Played("{begin}up\n{end}", on_panic=on_panic)
    guest.print(guest.shell + KDUMP)
    assert guest.expect_panic(1).message == "sysrq"
    guest.print(BOOT + guest.shell)
    assert guest.run("uname") == CommandResult(0, "up")


def test_a_silent_crash_is_told_by_the_firmware() -> None:
    guest = Played("{begin}up\n{end}")
    guest.print(BOOT + guest.shell)
    guest.wait_shell(1)
    guest.print(b"guest# " + BOOT)
    with pytest.raises(GuestTimeoutError, match=r"within 0\.4 s"):
        guest.expect_panic(0.4)  # an old log, as far as anybody knows
    guest.kernels = 2
    assert guest.expect_panic(5).message == ""
    guest.print(guest.shell)
    assert guest.run("uname") == CommandResult(0, "up")


def test_a_silent_crash_is_not_asked_of_a_firmware_that_is_gone() -> None:
    guest = Played()
    guest.print(BOOT + guest.shell + BOOT)
    guest.kernels = None
    with pytest.raises(GuestTimeoutError):
        guest.expect_panic(0.01)


def command(guest: Played, *pieces: bytes, end: bool = True) -> CommandResult:
    for piece in pieces:
        guest.print(piece)
    if end:
        guest.console_text.close(lambda: LostGuestError("QEMU ended"))
    return guest.wait_command()


def begin_and_end(guest: Played, status: int) -> tuple[bytes, bytes]:
    return marker(guest.record.nonce, "begin").encode() + b"\n", marker(
        guest.record.nonce, f"exit:{status}"
    ).encode() + b"\n"


def test_a_command_is_followed_into_the_capture_kernel() -> None:
    guest = Played(command=["x"])
    begin, end = begin_and_end(guest, 7)
    logged: list[str] = []
    for piece in (BOOT, begin, b"one\n", KDUMP + BOOT, begin, b"two\n", end):
        guest.print(piece)
    result = guest.wait_command(boot_log=logged.append)
    assert result == CommandResult(7, "one\n" + KDUMP.decode().replace("\r", "") + "two\n")
    assert "".join(logged).count("more") == 2


def test_a_command_whose_kernel_panics_and_nothing_comes() -> None:
    guest = Played(command=["x"])
    begin, _ = begin_and_end(guest, 0)
    with pytest.raises(GuestPanicError, match="sysrq") as error:
        command(guest, BOOT, begin, KDUMP)
    assert error.value.exit_code == 255


def test_a_command_whose_kernel_panics_and_hangs() -> None:
    guest = Played(command=["x"], boot_timeout=0.05)
    begin, _ = begin_and_end(guest, 0)
    with pytest.raises(GuestPanicError, match="sysrq"):
        command(guest, BOOT, begin, KDUMP, end=False)


def test_what_on_panic_cannot_be() -> None:
    with pytest.raises(UsageError, match="on_panic 'never' is not understood"):
        prepare(GuestOptions(on_panic="never"))  # type: ignore[arg-type]
