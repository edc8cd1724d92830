"""A prompt with a running guest, and guests of a prompt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from qemu_sdei.cli import main
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import LIMIT, check_nothing_left

pytestmark = pytest.mark.guest

IDLE = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M", smp=2, name="box")


Shell = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def box(runtime: Path) -> Iterator[Guest]:
    """A guest that is ready. What looks at it, asks for it as another process does."""
    with Guest(IDLE) as guest:
        guest.expect("idle: ready")
        yield guest
    check_nothing_left(runtime)


@pytest.fixture
def shell(capfd: pytest.CaptureFixture[str]) -> Shell:
    """`qemu-sdei shell box -c PROGRAM` in this process: exit code, output, errors."""

    def run(program: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(["shell", "box", "-c", program])
        sys.stdout.flush()
        return status, *capfd.readouterr()

    return run


def test_the_guest_of_another_process(box: Guest, shell: Shell) -> None:
    """By a program, and at a prompt: Ctrl-C and the end of the prompt leave the guest."""
    status, out, errors = shell(
        "print(guest); print(guest.inject(0, 1, wait=True).outcome, guest.trace(1)[0]['n'] > 0)\n"
        "print(guest.pause(), ': paused, ' in repr(guest), guest.resume(), "
        "'idle: ready' in guest.console, guest.explain().wedged)\n"
        "guest.firmware.on('CPU_ON').returns('DENIED'); print(len(guest.firmware.status()['rules']))",
    )
    assert (status, errors) == (0, "")
    first, *rest = out.splitlines()
    assert first.startswith("<guest 'box': running, 2 vCPUs (on, on), events: 0x0")
    assert rest == ["completed True", "paused True running True False", "1"]
    assert shell("guest.inject(0x7777)")[0] == 2, "a user's mistake"
    status, _, errors = shell("1 / 0")
    assert (status, errors.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    assert "qemu_sdei" not in errors

    prompt = pexpect.spawn(
        sys.executable,
        ["-m", "qemu_sdei", "shell", "box", "--plain"],
        env=os.environ | {"TERM": "dumb"},
        encoding="utf-8",
        timeout=3 * LIMIT,
    )
    prompt.expect("running, 2 vCPUs")
    prompt.expect(">>> ")
    prompt.sendline("guest.inject(0x7777)")
    prompt.expect("0x7777")
    assert "Traceback" not in str(prompt.before)
    prompt.expect(">>> ")
    prompt.sendline("import time; print('now'); time.sleep(1000)")
    prompt.expect("now\r\n")
    prompt.sendintr()
    prompt.expect("KeyboardInterrupt")
    prompt.expect(">>> ")
    prompt.send("guest.conso\t")
    prompt.expect("guest.console")
    prompt.sendline("[-12:]")
    prompt.expect("ready")
    prompt.sendeof()
    prompt.expect(pexpect.EOF)
    prompt.close()
    assert prompt.exitstatus == 0
    assert shell("print(guest.status()['name'])")[:2] == (0, "box\n")


def test_a_guest_of_a_prompt_ends_with_it(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a notebook's kernel is killed; a guest of a program goes on then (test_death_owner.py)."""
    monkeypatch.delenv("QEMU_SDEI_DIE_WITH_OWNER")
    program = (
        "import sys; sys.ps1 = '>>> '\n"  # as Python's prompt, IPython and a notebook's kernel have it
        "from qemu_sdei import Guest, GuestOptions\n"
        "guest = Guest(GuestOptions(kernel='builtin:bench', append='mode=idle', memory='128M'))\n"
        "guest.start(); guest.expect('idle: ready'); print('there', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    ) as kernel:
        assert kernel.stdout is not None
        assert kernel.stdout.readline() == b"there\n"
        kernel.send_signal(signal.SIGKILL)
    check_nothing_left(runtime)
