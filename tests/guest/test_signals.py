"""Where SIGINT is ignored, as for a command that a script has started with `&`, it stays so; SIGTERM ends a guest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.guests import Command, check_nothing_left, command, end_everything, processes, runtime_directory, until

IDLE = ("--kernel", "builtin:bench", "--append", "mode=idle smp=2", "--memory", "128M")
IGNORED = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable]


@pytest.mark.guest
def test_a_guest_that_a_script_has_in_the_background(runtime: Path) -> None:
    """Ctrl-C at the terminal is for what runs in the foreground there."""
    with Command(
        [*IGNORED, "-m", "qemu_sdei", "run", "-q", *IDLE],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    ) as guest:  # fmt: skip
        assert guest.stdout is not None
        until("the guest is ready", lambda: b"idle: ready" in guest.stdout.readline())
        guest.send_signal(signal.SIGINT)
        with command(runtime, "inject", "guest", "--event", "0", "--vcpu", "1", "--wait") as inject:
            assert inject.wait(30) == 0, "it still runs"
        guest.send_signal(signal.SIGTERM)
        assert guest.wait(30) == 128 + signal.SIGTERM
    check_nothing_left(runtime)


def test_the_tests_run_there_too() -> None:
    """Six of them send SIGINT, and want what it does where it is not ignored."""
    show = "import signal, tests.conftest; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run([*IGNORED, "-c", show], cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


@pytest.mark.guest
def test_a_test_that_fails_leaves_no_process() -> None:
    """Neither the guest's processes, nor those of its owner that the test has not waited for."""
    with contextlib.suppress(RuntimeError), runtime_directory() as path:
        owner = command(path, "run", "-q", *IDLE)
        until("it runs", lambda: len(processes(path)) == 2)
        raise RuntimeError("as a failing test")
    assert not processes(path)
    assert owner.wait(1) in (-signal.SIGKILL, 0)  # 0: somebody else has waited for it, as `end_everything` may
    end_everything(path)
