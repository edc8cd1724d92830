"""However a guest ends, and whoever is killed: no process, socket or file stays, and the terminal is as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pexpect
import pexpect.fdpexpect
import pytest

from qemu_sdei import rundir
from tests.guest.guests import check_nothing_left, command, left, processes, until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux")]

IDLE = ("--kernel", "builtin:bench", "--append", "mode=idle", "--memory", "128M")


def start(runtime: Path, *, linux: bool = False) -> subprocess.Popen[bytes]:
    """A guest that runs: which one makes a difference only to how long that takes."""
    more = ("--", "echo up; sleep 1000") if linux else IDLE
    process = command(runtime, "run", "-q", "--name", "g", *more)
    assert process.stdout is not None
    assert process.stdout.readline() == (b"up\n" if linux else b"idle: ready\n")
    assert len(processes(runtime)) == 2
    return process


def end(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, err = process.communicate(timeout=30)
    return process.returncode, err.decode()


def qemu_pid(runtime: Path) -> int:
    (pid,) = (pid for pid in processes(runtime) if b"-machine" in Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],  # by a closed terminal below
)
def test_a_signal_ends_it_all(runtime: Path, number: signal.Signals) -> None:
    process = start(runtime, linux=number == signal.SIGINT)
    process.send_signal(number)
    process.send_signal(number)  # an impatient user
    assert end(process) == (128 + number, "")
    assert processes(runtime) == []
    assert left(runtime) == []


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3, 0.6])
def test_a_signal_while_it_starts(runtime: Path, delay: float) -> None:
    process = command(runtime, "run", "-q", "--", "sleep 1000")
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        pass
    process.terminate()
    code, err = end(process)
    # Before Python has come so far that it handles it, the signal simply kills.
    assert code in (128 + signal.SIGTERM, -signal.SIGTERM)
    assert "Traceback" not in err or code < 0
    check_nothing_left(runtime)


def test_kill_9_of_the_command(runtime: Path) -> None:
    process = start(runtime)
    process.kill()
    end(process)
    check_nothing_left(runtime)


def test_kill_9_of_everything_is_cleaned_up_by_the_next_command(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(runtime)
    for pid in (process.pid, *processes(runtime)):
        os.kill(pid, signal.SIGKILL)
    end(process)
    until("all processes end", lambda: not processes(runtime))
    assert rundir.running() == []
    assert left(runtime) == []


def test_kill_9_of_qemu(runtime: Path) -> None:
    process = start(runtime)
    os.kill(qemu_pid(runtime), signal.SIGKILL)
    code, err = end(process)
    assert code == 1
    assert "QEMU was killed by SIGKILL" in err
    check_nothing_left(runtime)


def test_no_file_in_shared_memory(runtime: Path) -> None:
    before = set(Path("/dev/shm").iterdir())
    process = start(runtime)
    assert {path for path in set(Path("/dev/shm").iterdir()) - before if "sdei" in path.name} == set()
    process.terminate()
    end(process)


class Terminal:
    """A user's terminal in which `qemu-sdei run` runs."""

    def __init__(self, runtime: Path) -> None:
        self.master, self.slave = os.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qemu_sdei", "run", "--name", "t"],
            stdin=self.slave, stdout=self.slave, stderr=self.slave, env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
        )  # fmt: skip
        self.screen = pexpect.fdpexpect.fdspawn(self.master, timeout=60, encoding="utf-8", codec_errors="replace")
        self.screen.expect("guest# ")

    def end(self) -> int:
        """Wait for the command's end; its exit status. The terminal must be as it was."""
        status = self.process.wait(30)
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.slave)
        os.close(self.master)
        return status


def test_the_console_works_and_the_terminal_is_restored(runtime: Path) -> None:
    terminal = Terminal(runtime)
    assert termios.tcgetattr(terminal.slave) != terminal.before  # raw
    terminal.screen.send("echo $((6*7))\r")
    terminal.screen.expect("\r\n42\r")
    terminal.screen.send("echo sleeping; sleep 1000\r")
    terminal.screen.expect("\nsleeping\r")
    for _ in range(10):  # the shell may be between `echo` and `sleep`, where it takes no notice: press again
        terminal.screen.send("\x03")  # for the guest, not for us
        if terminal.screen.expect(["guest# ", pexpect.TIMEOUT], timeout=5) == 0:
            break
    else:
        pytest.fail("Ctrl-C did not end the guest's `sleep`")
    terminal.screen.send("\x1dq")
    terminal.screen.expect("ending the guest")
    assert terminal.end() == 0
    check_nothing_left(runtime)


def test_the_guest_powers_off(runtime: Path) -> None:
    terminal = Terminal(runtime)
    terminal.screen.send("exit\r")
    terminal.screen.expect("the guest ended .guest-shutdown.")
    assert terminal.end() == 0
    check_nothing_left(runtime)


@pytest.mark.parametrize("who", ["command", "qemu"])
def test_the_terminal_survives_a_killing(runtime: Path, who: str) -> None:
    terminal = Terminal(runtime)
    if who == "command":
        terminal.process.terminate()
    else:
        os.kill(qemu_pid(runtime), signal.SIGKILL)
    assert terminal.end() == (143 if who == "command" else 1)
    check_nothing_left(runtime)


def test_a_closed_terminal_ends_the_guest(runtime: Path) -> None:
    terminal = pexpect.spawn(
        sys.executable, ["-m", "qemu_sdei", "run"], env=dict(os.environ | {"XDG_RUNTIME_DIR": str(runtime)}), timeout=60
    )
    terminal.expect("guest# ")
    terminal.close(force=False)  # the terminal's end: SIGHUP
    check_nothing_left(runtime)
