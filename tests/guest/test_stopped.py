"""One of a guest's processes is stopped (SIGSTOP): each command ends, names the process and what to do; when it is
resumed, the guest is as it was. `stop` ends one whichever of them is stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei import rundir, rundir_base
from qemu_sdei.errors import LaunchError, UnreachableError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import LIMIT, Command, check_nothing_left, command, processes, until

pytestmark = pytest.mark.guest

IDLE = ("--kernel", "builtin:bench", "--append", "mode=idle smp=2", "--memory", "128M")
GUESTS = ("a", "b", "c", "d")
COMMANDS = {
    "list": ("list",),
    "status": ("status", "a"),
    "registers": ("status", "a", "--registers", "1"),
    "top": ("top", "a", "--once"),
    "events": ("events", "a"),
    "explain": ("explain", "a"),
    "firmware": ("firmware", "a"),
    "regs": ("regs", "a", "--vcpu", "1"),
    "pause": ("pause", "a", "-q"),
    "inject": ("inject", "a", "--event", "0", "--vcpu", "1", "--wait"),
    "ras sources": ("ras", "sources", "a"),
    "nmi": ("nmi", "a", "--vcpu", "1"),
    "ras host-error": ("ras", "host-error", "a", "--address", "0x40000000", "-q"),
    "ras abort": ("ras", "abort", "a", "--timeout", "1", "-q"),
    "ras fuzz": ("ras", "fuzz", "a", "-q"),
    "attach": ("attach", "a"),
    "shell": ("shell", "a", "-c", "guest.status()"),
    "migrate": ("migrate", "b", "-q"),
    "save": ("save", "c", "DIR", "-q"),
    "snapshot": ("snapshot", "d", "list", "-q"),
}
SAY = {
    "supervisor": {"pause", "list", "status", "attach", "migrate", "save", "snapshot", "registers"},
    "backend": {
        "list",
        "attach",
        "status",
        "explain",
        "regs",
        "inject",
        "ras sources",
        "nmi",
        "ras fuzz",
        "ras host-error",
        "ras abort",
        "firmware",
        "migrate",
        "save",
        "registers",
        "shell",
        "top",
    },
    "QEMU": {"pause", "list", "status", "attach", "explain", "inject", "migrate", "save", "snapshot", "registers"},
}
"""Commands that need, or tell of, the process. (A snapshot of d's is refused for another reason.)"""


def pids(runtime: Path, owners: dict[str, Command], what: str, name: str) -> int:
    if what == "supervisor":
        return owners[name].pid
    mark = b"-machine" if what == "QEMU" else b"qemu_sdei.backend"
    (pid,) = (
        pid
        for pid in processes(runtime / "qemu-sdei" / name)
        if mark in Path(f"/proc/{pid}/cmdline").read_bytes() and f"/{name}" in Path(f"/proc/{pid}/cmdline").read_text()
    )
    return pid


@contextlib.contextmanager
def guests(runtime: Path) -> Iterator[dict[str, Command]]:
    """Those of `GUESTS`, ready; ended by `stop` in the test."""
    with contextlib.ExitStack() as stack:
        owners = {}
        for name in GUESTS:
            owners[name] = stack.enter_context(command(runtime, "run", "-q", "--name", name, *IDLE))
            stack.callback(owners[name].kill)
        for owner in owners.values():
            assert owner.stdout is not None
            until("the guest is ready", lambda owner=owner: b"idle: ready" in owner.stdout.readline())
        yield owners


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "what", [what if what == "supervisor" else pytest.param(what, marks=pytest.mark.slow) for what in SAY]
)
def test_each_command_ends_and_names_the_process(runtime: Path, tmp_path: Path, what: str) -> None:
    with guests(runtime) as owners:
        stopped = {name: pids(runtime, owners, what, name) for name in GUESTS}
        for pid in stopped.values():
            os.kill(pid, signal.SIGSTOP)
        asked = {
            name: command(runtime, *(str(tmp_path / "saved") if word == "DIR" else word for word in words))
            for name, words in COMMANDS.items()
        }
        answers = {name: asked[name].communicate(timeout=120) for name in COMMANDS}
        for name, (out, err) in answers.items():
            where = next((word for word in COMMANDS[name][1:] if word in GUESTS), "a")
            told = re.findall(rf"its {what}, process {stopped[where]}, is stopped|process {stopped[where]} is stopped",
                              (out + err).decode())  # fmt: skip
            assert bool(told) == (name in SAY[what]), (name, out, err)
            assert b"kill -CONT" in out + err or not told
            assert b"Traceback" not in err
            assert len(err.splitlines()) <= 1, err
        with command(runtime, "stop", "a") as stop:
            _, err = stop.communicate(timeout=60)
        assert stop.returncode == 0, err
        assert owners["a"].communicate(timeout=LIMIT)[1] == b"", "it ended in the ordinary way"
        assert owners["a"].returncode == 143
        del stopped["a"]
        for pid in stopped.values():
            os.kill(pid, signal.SIGCONT)
        for name in stopped:
            with command(runtime, "inject", name, "--event", "0", "--vcpu", "1", "--wait", "--json") as inject:
                out, err = inject.communicate(timeout=60)
            assert json.loads(out)["outcomes"] == {"completed": 1}, err
        with command(runtime, "stop", *stopped) as stop:
            assert stop.wait(LIMIT) == 0
        for name in stopped:
            owners[name].communicate(timeout=LIMIT)
    assert not (tmp_path / "saved").exists()
    check_nothing_left(runtime)


def test_qmp_of_a_qemu_that_is_stopped(runtime: Path) -> None:
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M")) as guest:
        guest.expect("idle: ready")
        assert guest.qemu_pid is not None
        os.kill(guest.qemu_pid, signal.SIGSTOP)
        with pytest.raises(UnreachableError, match=f"process {guest.qemu_pid} is stopped"):
            guest.qmp("query-status")
        os.kill(guest.qemu_pid, signal.SIGCONT)
        assert guest.qmp("query-status")["status"] == "running", "the late answer is not taken for this one's"


@pytest.mark.parametrize("gone", [False, True])
def test_a_guest_ends_though_its_run_directory_cannot_be_removed(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """A process that is stopped holds the lock of the run directories, or a logout has taken all of them away."""
    monkeypatch.setattr(rundir_base, "_BASE_LOCK", 0.3)
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M")) as guest:
        guest.expect("idle: ready")
        base = runtime / "qemu-sdei"
        held = os.open(base / ".lock", os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(held, fcntl.LOCK_EX)
        if gone:
            shutil.rmtree(base)
        guest.qmp("quit")
        assert guest.wait_off(LIMIT).returncode == 0
    os.close(held)
    assert rundir.running() == [], "what stayed goes at the next look"
    check_nothing_left(runtime)


def test_a_qemu_that_is_stopped_while_it_starts(runtime: Path, tmp_path: Path) -> None:
    """The limit is of silence; a process that is stopped is named."""
    qemu = tmp_path / "qemu-system-aarch64"
    qemu.write_text('#!/bin/sh\ncase "$*" in *monitor.bin*) kill -STOP $$;; esac\nexec qemu-system-aarch64 "$@"\n')
    qemu.chmod(0o755)
    options = GuestOptions(kernel="builtin:bench", memory="128M", qemu=qemu, start_timeout=2)
    with pytest.raises(LaunchError, match=r"QEMU did not answer: process \d+ is stopped"):
        Guest(options).start()
    check_nothing_left(runtime)


def test_a_qemu_that_comes_up_slowly(runtime: Path, tmp_path: Path) -> None:
    """One that gets on has more time than one that is silent: here it computes for twice the limit first."""
    qemu = tmp_path / "qemu-system-aarch64"
    busy = "end=$(($(date +%s) + 4)); while [ $(date +%s) -lt $end ]; do :; done"
    qemu.write_text(f'#!/bin/bash\ncase "$*" in *monitor.bin*) {busy};; esac\nexec qemu-system-aarch64 "$@"\n')
    qemu.chmod(0o755)
    options = GuestOptions(
        kernel="builtin:bench", append="mode=idle smp=2", memory="128M", qemu=qemu, start_timeout=2, smp=2
    )
    with Guest(options) as guest:
        guest.expect("idle: ready")


def test_no_word_of_asyncio(runtime: Path) -> None:
    """What is left unfinished in a guest's event loop, as by a QEMU that is lost, is not printed at its end."""
    script = """
import asyncio, gc
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions

async def leave():
    async def fail():
        raise OSError("the connection broke")
    asyncio.create_task(fail())
    tasks.append(asyncio.create_task(asyncio.sleep(3600)))

tasks = []
with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M")) as guest:
    guest.expect("idle: ready")
    guest.loop.call(leave(), 10)
del guest, tasks
gc.collect()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100,
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    check_nothing_left(runtime)


def test_input_on_its_way_counts_as_backlog(runtime: Path) -> None:
    """Whoever reads a pipe for the guest stops where it takes no more, however late the event loop hears of that."""
    with Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M")) as guest:
        guest.expect("idle: ready")
        release = threading.Event()
        guest.loop.soon(lambda: release.wait(LIMIT))
        try:
            guest.write(b"x" * 100_000)
            assert guest.input_backlog() >= 100_000
        finally:
            release.set()
