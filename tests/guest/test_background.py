"""A guest in the background, and a second terminal: `run -d`, `console`, `logs`, `wait`, `stop`, job control."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest

from qemu_sdei import rundir, stopped
from qemu_sdei.vm.options import DIE_WITH_OWNER
from tests.guest.guests import LIMIT, check_nothing_left, command, until

pytestmark = pytest.mark.guest

IDLE = ("--kernel", "builtin:bench", "--append", "mode=idle smp=2", "--memory", "128M")


def ask(runtime: Path, *words: str, status: int = 0) -> str:
    with command(runtime, *words) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == status, (words, out, err)
    assert b"Traceback" not in err
    return (out + err).decode()


@contextmanager
def terminal(*words: str, program: str = sys.executable) -> Iterator[Any]:
    found = pexpect.spawn(
        program, [*(("-m", "qemu_sdei") if program == sys.executable else ()), *words],
        timeout=60, encoding="utf-8", dimensions=(30, 150),
    )  # fmt: skip
    try:
        yield found
    finally:
        found.close(force=True)


def ended(screen: Any) -> int:
    screen.expect(pexpect.EOF)
    screen.close()
    return int(screen.exitstatus)


def test_a_guest_in_the_background_and_its_end(runtime: Path) -> None:
    assert ask(runtime, "run", "-q", "-d", "--name", "box", *IDLE) == "box\n"
    assert ask(runtime, "list", "-q") == "box\n"
    until("it prints", lambda: "idle: ready" in ask(runtime, "logs"))
    assert ask(runtime, "logs", "box", "--since", "1h") == ask(runtime, "logs", "box")
    assert "no guest named 'other'" in ask(runtime, "logs", "other", status=2)
    with command(runtime, "wait", "box", "--json") as wait, command(runtime, "logs", "-f", "box") as logs:
        assert wait.poll() is logs.poll() is None
        assert "has not ended in that time" in ask(runtime, "wait", "--timeout", "0.5", status=1)
        # It migrates meanwhile, and has another name: both follow.
        ask(runtime, "migrate", "box", "again", "-q")
        ask(runtime, "stop", "again")
        out, _ = wait.communicate(timeout=LIMIT)
        said, _ = logs.communicate(timeout=LIMIT)
    assert wait.returncode == 143
    assert json.loads(out)["status"] == 143
    assert "ended by `qemu-sdei stop` (process" in json.loads(out)["words"]
    assert b"idle: ready" in said
    assert logs.returncode == 0
    check_nothing_left(runtime)


@pytest.mark.slow
def test_the_end_is_known_afterwards(runtime: Path) -> None:
    """Of a guest in the background, whoever asks first."""
    call = ("--kernel", "builtin:bench", "--append", "mode=call function=0x84000000", "--memory", "128M")
    ask(runtime, "run", "-q", "-d", "--name", "box", *call)
    until("it ends", lambda: not rundir.running())
    assert "call: " in ask(runtime, "logs", "box") or "x0" in ask(runtime, "logs", "box")
    assert "guest-shutdown" in ask(runtime, "wait", "box")
    assert "no guest named 'box'" in ask(runtime, "wait", "box", status=2)
    check_nothing_left(runtime)


def test_what_cannot_be_started_is_told_where_it_was_asked_for(runtime: Path) -> None:
    assert "no such file" in ask(runtime, "run", "-q", "-d", "--kernel", "/nowhere", status=2)
    assert "leave out it" in ask(runtime, "run", "-q", "-d", "--kdump", status=2)
    check_nothing_left(runtime)


@pytest.mark.slow
def test_two_consoles(runtime: Path) -> None:
    """One types, any number look on; who takes it over is named to the other."""
    ask(runtime, "run", "-q", "-d", "--name", "box", *IDLE)
    with terminal("console", "box") as one, terminal("console", "box", "--look") as other:
        one.expect("console of guest 'box': you type; Ctrl-] leaves it")
        one.expect("idle: ready")  # what it has printed last
        other.expect("you look on; Ctrl-] leaves it")
        with terminal("console", "box") as third:
            third.expect("you look on, process [0-9]+ .* types .--take takes it over.")
            third.send("x")
            third.expect("types at this console: you look on")
        with terminal("console", "box", "--take") as third:
            third.expect("you type; Ctrl-] leaves it")
            one.send("x")
            one.expect(r"process [0-9]+ \(`qemu-sdei console`\) types at this console: you look on")
            third.send("\x1d")
            third.expect("guest 'box' runs on")
            assert ended(third) == 0
        ask(runtime, "stop", "box")
        for screen in (one, other):
            screen.expect("the guest has ended")
            assert ended(screen) == 0
    ask(runtime, "wait", "box", status=143)
    check_nothing_left(runtime)


def test_a_terminal_detaches_from_its_guest(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DIE_WITH_OWNER)
    with terminal("run", "--name", "box", *IDLE) as screen:
        screen.expect("guest 'box' is running; Ctrl-] detaches from it or ends it")
        screen.expect("idle: ready")
        screen.send("\x1d")
        screen.expect("d: detach, the guest runs on; q: end the guest")
        screen.send("x")  # back
        screen.send("\x1d")
        screen.expect("d: detach")
        assert screen.isalive()
        screen.send("d")
        screen.expect("guest 'box' runs on in the background")
        assert ended(screen) == 0
    assert "idle: ready" in ask(runtime, "logs", "box")
    assert json.loads(ask(runtime, "list", "--json"))["guests"][0]["owned"] is True
    ask(runtime, "inject", "box", "--event", "0", "--vcpu", "1", "--wait")
    ask(runtime, "stop")
    ask(runtime, "wait", "box", status=143)
    check_nothing_left(runtime)


@pytest.mark.slow
def test_one_that_dies_with_its_owner_is_not_detached(runtime: Path) -> None:
    with terminal("run", "--name", "box", *IDLE) as screen:
        screen.expect("idle: ready")
        screen.send("\x1dd")
        screen.expect("cannot be detached: it is to end with the process that runs it")
        screen.send("\x1dq")
        screen.expect("ending the guest")
        assert ended(screen) == 0
    check_nothing_left(runtime)


def test_a_job_of_a_shell(runtime: Path) -> None:
    """`run ... &` leaves the terminal to the shell, and has it after `fg`."""
    with terminal("--norc", "-i", program="bash") as shell:
        shell.send(f"PS1='$ '; {sys.executable} -m qemu_sdei run --name box {' '.join(map(repr, IDLE))} &\r")
        shell.expect("guest 'box' is running as a job in the background")
        shell.expect("idle: ready")
        for number in range(2):
            shell.send(f"jobs; echo here-$(({number}+5))\r")
            shell.expect("Running")
            shell.expect(f"here-{number + 5}")
        shell.send("fg\r")
        shell.expect("qemu_sdei run")
        until("the terminal is raw", lambda: not shell.getecho())
        shell.send("\x1d")
        shell.expect("d: detach")
        shell.send("q")
        shell.expect("ending the guest")
        shell.send("echo $((6*7))\r")
        shell.expect("42\r")
    check_nothing_left(runtime)


def test_stop_ends_a_guest_whose_supervisor_is_stopped(runtime: Path) -> None:
    """It is resumed, to clean up and to tell its user."""
    with command(runtime, "run", "--name", "box", *IDLE) as owner:
        assert owner.stdout is not None
        until("the guest is ready", lambda: b"idle: ready" in owner.stdout.readline())
        os.kill(owner.pid, signal.SIGSTOP)
        until("it is stopped", lambda: stopped.is_stopped(owner.pid))
        assert "its supervisor, process" in ask(runtime, "list")
        assert "stopped" in ask(runtime, "status", "box")
        assert ask(runtime, "stop", "box") == "guest 'box' is ended\n"
        _, err = owner.communicate(timeout=LIMIT)
        assert owner.returncode == 143
        assert b"the guest was ended by `qemu-sdei stop` (process" in err
    check_nothing_left(runtime)
