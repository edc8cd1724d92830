"""Commands in guests, whose bytes are their own: `run -- COMMAND` and `exec`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from qemu_sdei.errors import GuestPanicError, GuestTimeoutError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.guest_exec import ExecResult
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.vm.options import DIE_WITH_OWNER, GuestOptions
from tests.guest.guests import LIMIT, Command, check_nothing_left, plain, until
from tests.guest.test_background import ask, ended, terminal

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]


def done(runtime: Path, *words: str, stdin: bytes = b"", timeout: float = 100) -> tuple[int, bytes, bytes]:
    result = subprocess.run(
        [sys.executable, "-m", "qemu_sdei", *words], input=stdin, capture_output=True, timeout=timeout, check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    )  # fmt: skip
    assert b"Traceback" not in result.stderr
    return result.returncode, result.stdout, result.stderr


def begun(runtime: Path, *words: str) -> Command:
    return Command(
        [sys.executable, "-m", "qemu_sdei", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    )  # fmt: skip


@pytest.fixture
def box(runtime: Path) -> Iterator[Path]:
    """A guest in the background, of the name `box`."""
    assert ask(runtime, "run", "-q", "-d", "--name", "box") == "box\n"
    yield runtime
    ask(runtime, "stop")
    ask(runtime, "wait", "box", status=143)
    check_nothing_left(runtime)


def test_bytes_are_bytes_from_end_to_end(runtime: Path) -> None:
    data = os.urandom(200_000) + b"\r\n\xff\xfe\0\x1e"
    status, out, err = done(runtime, "run", "-q", "--", "cat; echo -n error >&2; exit 42", stdin=data)
    assert (status, err) == (42, b"error")
    assert out == data
    check_nothing_left(runtime)


def test_commands_in_a_running_guest(box: Path) -> None:
    data = os.urandom(200_000)
    assert done(box, "exec", "box", "--", "cat", stdin=data) == (0, data, b"")
    assert done(box, "exec", "--", "cat; echo e >&2; exit 7", stdin=b"hi") == (7, b"hi", b"e\n")
    assert done(box, "exec", "--", "printf", "%s|", "a b", "$HOME", "'") == (0, b"a b|$HOME|'|", b"")
    assert done(box, "exec", "--", "true")[0] == 0
    assert done(box, "exec", "--", "kill -9 $$")[0] == 137
    assert done(box, "exec", "--", "exit 300")[0] == 300 & 255
    status, out, _ = done(box, "exec", "--", "seq 100000")
    assert (status, out) == (0, b"".join(b"%d\n" % number for number in range(1, 100_001)))
    # What it leaves in the background is not waited for, and goes on.
    assert done(box, "exec", "--", "sleep 1000 & echo $! >/tmp/pid")[0] == 0
    assert done(box, "exec", "--", "kill $(cat /tmp/pid)")[0] == 0
    long = "true " + "x" * 60_000
    assert done(box, "exec", "--", long)[0] == 0
    assert b"65536 bytes at most" in done(box, "exec", "--", long + "x" * 10_000)[2]
    # Several at a time, and no more than it has ports.
    sleepers = [begun(box, "exec", "--", "echo begun; read x; echo $x") for _ in range(4)]
    assert [sleeper.stdout.readline() for sleeper in sleepers if sleeper.stdout] == [b"begun\n"] * 4
    assert b"runs 4 commands already" in done(box, "exec", "--", "true")[2]
    for number, sleeper in enumerate(sleepers):
        out, _ = sleeper.communicate(b"%d\n" % number, timeout=LIMIT)
        assert (sleeper.returncode, out) == (0, b"%d\n" % number)
    # The console is somebody else's meanwhile.
    assert "99999" not in ask(box, "logs", "box")


def test_who_goes_has_its_command_ended(box: Path) -> None:
    """Also who is killed: nobody is left to say so."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with begun(box, "exec", "--", "echo begun; exec sleep 54321") as client:
            assert client.stdout is not None
            assert client.stdout.readline() == b"begun\n"
            client.send_signal(number)
            client.communicate(timeout=LIMIT)
            assert client.returncode == (130 if number == signal.SIGINT else -number)
        until("it is ended", lambda: done(box, "exec", "--", "ps | grep -q '[5]4321'")[0] == 1)
    status, _, err = done(box, "exec", "--timeout", "3", "--", "sleep 1000")
    assert (status, err) == (1, b"qemu-sdei: the command has not ended within 3 s, and was given up\n")


@pytest.mark.slow
def test_a_reader_that_is_slow_has_the_command_wait(box: Path) -> None:
    """Nothing piles up here: neither at the client, nor at QEMU."""
    with begun(box, "exec", "--", "cat /dev/zero") as client:
        assert client.stdout is not None
        assert client.stdout.read(1) == b"\0"

        def memory() -> int:
            return int(Path(f"/proc/{client.pid}/statm").read_text().split()[1]) * 4096

        def written() -> bytes:
            return done(box, "exec", "--", "read x </proc/$(pidof cat)/io; grep wchar /proc/$(pidof cat)/io")[1]

        before = memory()
        until("it waits", lambda: written() == written() != b"")
        assert memory() - before < 8 << 20
        client.terminate()
        client.communicate(timeout=LIMIT)


def test_a_command_goes_on_when_its_guest_migrates(box: Path) -> None:
    """Its bytes too: none is lost, none comes twice."""
    with begun(box, "exec", "box", "--", "cat; seq 200000; read x </dev/null; exit 5") as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"before\n")
        assert client.stdout.readline() == b"before\n"
        ask(box, "migrate", "box", "moved", "-q")
        client.stdin.write(b"between\n")
        assert client.stdout.readline() == b"between\n"
        client.stdin.close()
        client.stdin = None
        assert client.stdout.readline() == b"1\n"
        ask(box, "migrate", "moved", "box", "--route", "copy", "-q")
        out, err = client.communicate(timeout=100)
        assert client.returncode == 5, err
        assert all(line.endswith(b"is waited for") for line in err.splitlines()), "on a busy host that takes its time"
        assert out == b"".join(b"%d\n" % number for number in range(2, 200_001))


@pytest.mark.slow
def test_what_ends_a_command_is_told_in_one_line(box: Path) -> None:
    with begun(box, "exec", "--", "echo begun; exec sleep 1000") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"begun\n"
        assert done(box, "exec", "--", "reboot -f")[0] in (0, 1)
        _, err = client.communicate(timeout=100)
        assert client.returncode == 1
        assert err == b"qemu-sdei: the guest was reset during its command, or another kernel has begun\n"
    # Booting: it is waited for.
    assert done(box, "exec", "-q", "--", "echo again") == (0, b"again\n", b"")
    done(box, "exec", "--timeout", "2", "--", "echo c >/proc/sysrq-trigger")
    status, _, err = done(box, "exec", "-q", "--", "true")
    assert status == 255
    assert err == b"qemu-sdei: the kernel of guest 'box' has panicked: see `qemu-sdei logs box`\n"


@pytest.mark.slow
def test_a_guest_without_an_agent(runtime: Path) -> None:
    idle = ("--kernel", "builtin:bench", "--append", "mode=idle", "--memory", "128M")
    ask(runtime, "run", "-q", "-d", "--name", "bare", *idle)
    status, _, err = done(runtime, "exec", "--", "true")
    assert status == 2
    assert b"guest 'bare' takes no commands: our agent is only in" in err
    assert b"there is no command after --: give one, or leave -- out" in done(runtime, "exec", "--")[2]
    ask(runtime, "stop")
    ask(runtime, "wait", "bare", status=143)
    check_nothing_left(runtime)


@pytest.mark.slow
def test_a_terminal_of_its_own(box: Path) -> None:
    with terminal("exec", "box") as screen:
        screen.expect("# ")
        screen.send("stty size; tty\r")
        screen.expect("30 150")
        screen.expect("/dev/pts/")
        screen.setwinsize(40, 100)
        until("it has the new size", lambda: _size(screen) == "40 100")
        screen.send("sleep 1000\r")
        for _ in range(10):  # the shell may be between two lines, where it takes no notice: press again
            screen.send("\x03")
            if screen.expect(["\\^C.*# ", pexpect.TIMEOUT], timeout=5) == 0:
                break
        screen.send("exit 9\r")
        assert ended(screen) == 9
    with terminal("exec", "box", "--", "cat") as screen:
        screen.send("x\r")
        screen.expect("x\r\nx\r\n")
        screen.send("\x1d")
        assert ended(screen) == 130


@pytest.mark.slow
def test_the_console_has_the_terminals_size(box: Path) -> None:
    with terminal("console", "box") as screen:
        screen.expect("you type")
        until("it has the size", lambda: _size(screen) == "30 150")
        screen.setwinsize(40, 100)
        until("it has the new size", lambda: _size(screen) == "40 100")
        screen.send("\x1d")
        assert ended(screen) == 0


def test_from_python(runtime: Path) -> None:
    with Guest(GuestOptions(channel=True)) as guest:
        data = os.urandom(300_000)
        assert guest.exec("cat; echo -n e >&2; exit 4", stdin=data) == ExecResult(4, data, b"e")
        assert plain(guest.run("echo as ever").output) == "as ever\n"
        with pytest.raises(GuestTimeoutError, match="did not end within 1 s"):
            guest.exec("sleep 1000", timeout=1)
        with pytest.raises(GuestPanicError):
            guest.exec("echo c >/proc/sysrq-trigger")
    check_nothing_left(runtime)


def _size(screen: Any) -> str:
    screen.send("stty size\r")
    screen.expect([r"\n([0-9]+ [0-9]+)\r", "stty: standard input"])  # the second: it has none yet
    return str(screen.match.group(1)) if screen.match.re.groups else ""


@pytest.mark.slow
def test_a_kernel_without_the_driver(runtime: Path) -> None:
    """The command runs on the console, and one line says what is lost."""
    kernel = DebianCache().cached_kernels()[0]
    status, out, err = done(runtime, "run", "-q", "--kernel", str(kernel.image), "--", "echo x; echo y >&2; exit 4")
    assert (status, out) == (4, b"x\ny\n")
    assert err.startswith(b"qemu-sdei: warning: this kernel has no virtio_console: the command runs on the console.")
    assert err.count(b"\n") == 1
    check_nothing_left(runtime)


@pytest.mark.slow
def test_a_command_outlives_its_supervisor(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes its output then: it goes to the console, and the command to its end."""
    monkeypatch.delenv(DIE_WITH_OWNER)
    with begun(runtime, "run", "-q", "--name", "box", "--", "echo begun; sleep 20; echo late; exit 9") as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"begun\n"
        owner.kill()
    ask(runtime, "attach", "-q", "-d", "box")
    assert done(runtime, "wait", "-q", "box")[0] == 9
    check_nothing_left(runtime)


@pytest.mark.slow
def test_commands_in_a_guest_that_was_restored(runtime: Path, tmp_path: Path) -> None:
    ask(runtime, "run", "-q", "-d", "--name", "box")
    assert done(runtime, "exec", "--", "cat", stdin=b"x") == (0, b"x", b"")
    ask(runtime, "save", "box", str(tmp_path / "saved"), "--end", "-q")
    done(runtime, "wait", "-q", "box")
    with begun(runtime, "restore", str(tmp_path / "saved"), "--name", "again", "-q") as owner:
        until("it is there", lambda: done(runtime, "list", "-q")[1] == b"again\n")
        assert done(runtime, "exec", "-q", "again", "--", "cat", stdin=b"y") == (0, b"y", b"")
        ask(runtime, "stop", "again")
        owner.communicate(timeout=LIMIT)
        assert owner.returncode == 143
    check_nothing_left(runtime)


@pytest.mark.slow
def test_a_kernel_of_another_series(runtime: Path) -> None:
    data = os.urandom(100_000)
    status, out, _ = done(runtime, "run", "-q", "--series", "6.12", "--", "cat", stdin=data)
    assert (status, out) == (0, data)
    check_nothing_left(runtime)


@pytest.mark.slow
def test_a_disk_that_is_full_is_an_error(runtime: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "qemu_sdei", "run", "-q", "--", "echo x"], stdin=subprocess.DEVNULL, stdout=full,
            stderr=subprocess.PIPE, timeout=100, check=False, env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == b"qemu-sdei: error: standard output cannot be written: No space left on device\n"
    check_nothing_left(runtime)
