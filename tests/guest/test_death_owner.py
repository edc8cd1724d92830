"""The owner of a guest is killed: the guest goes on, is found, and can be taken over or ended. Orderly ends end it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import DIE_WITH_OWNER, GuestOptions
from tests.guest.guests import Command, check_nothing_left, command, left, plain, processes, until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("ownerless")]

IDLE = ("--kernel", "builtin:bench", "--append", "mode=idle smp=2", "--memory", "128M")

OWNER = """
import os, signal, sys, time
from qemu_sdei import Guest, GuestOptions
guest = Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M", name="g"))
{before}
guest.start()
guest.expect("idle: ready")
print("up", flush=True)
{then}
"""


def owner(then: str = "time.sleep(1000)", before: str = "") -> subprocess.Popen[bytes]:
    """Another process that runs guest 'g'."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(before=before, then=then)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n", process.communicate(timeout=30)
    return process


def killed() -> None:
    """A guest 'g' that has lost its owner."""
    with owner() as process:
        process.kill()


def ask(runtime: Path, *words: str, status: int = 0) -> str:
    """Run a command; return what it prints."""
    process = command(runtime, *words)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err.decode()
    return (out if status == 0 else err).decode()


def test_the_guest_goes_on_and_commands_find_it(runtime: Path) -> None:
    killed()
    (found,) = rundir.running()
    assert (found.name, found.owned, found.pid) == ("g", False, None)
    (told,) = json.loads(ask(runtime, "list", "--json"))["guests"]
    assert (told["name"], told["owned"], told["pid"], told["epoch"]) == ("g", False, None, 1)
    table = ask(runtime, "list")
    assert re.search(r"^g +none ", table, re.MULTILINE)
    assert "`qemu-sdei attach g` takes it over" in table
    assert "completed" in ask(runtime, "inject", "g", "--event", "software", "--vcpu", "1", "--wait")
    assert "delivered" in ask(runtime, "status", "g")
    assert "no owner" in ask(runtime, "migrate", "g", status=2)
    assert "taken by a guest without owner: take it over by `qemu-sdei attach g`" in ask(
        runtime, "run", "--name", "g", *IDLE, status=2
    )


def test_it_can_be_adopted_and_all_works_as_before(runtime: Path) -> None:
    killed()
    with ControlClient(rundir.find("g").control) as client:
        client.inject(0, 1, wait=True)
        delivered = client.status()["counts"]["delivered"]
    with Guest.adopt("g") as guest:
        assert "idle: ready" in guest.console
        assert guest.status()["counts"]["delivered"] == delivered, "the firmware's state is the guest's own"
        assert guest.inject(0, 1, wait=True).outcome == "completed"
        assert guest.qmp("query-status")["status"] == "running"
        with pytest.raises(UsageError, match=f"'g' has an owner, process {os.getpid()}"):
            Guest.adopt("g")
        assert guest.backend_pid is not None
        os.kill(guest.backend_pid, signal.SIGKILL)
        until("another backend", lambda: guest.backend_starts == 2)
        assert guest.inject(0, 0, wait=True).outcome == "completed"
        result = guest.migrate("g2")
        assert (result.source, guest.name) == ("g", "g2")
        assert guest.inject(0, 1, wait=True).outcome == "completed"
        guest.expect("idle: ready")
        guest.reset()
        guest.expect("idle: ready")
    check_nothing_left(runtime)


def test_after_its_backend_too_was_killed(runtime: Path) -> None:
    killed()
    (line,) = (g for g in json.loads(ask(runtime, "list", "--json"))["guests"])
    os.kill(line["backend_pid"], signal.SIGKILL)
    until("the backend ends", lambda: len(processes(runtime)) == 1)
    assert [guest.owned for guest in rundir.running()] == [False]
    with Guest.adopt("g") as guest:
        assert guest.inject(0, 1, wait=True).outcome == "completed"
    check_nothing_left(runtime)


def test_owner_after_owner(runtime: Path) -> None:
    """Each is killed; the last one has what the guest printed while it had none."""
    killed()
    adopter = (
        "import time\nfrom qemu_sdei import Guest\nguest = Guest.adopt('g')\nguest.start()\n"
        "print('up', flush=True)\ntime.sleep(1000)"
    )
    with Command([sys.executable, "-c", adopter], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
    path = rundir.find("g").path
    until("the backend is at the console", lambda: _connected(path / rundir.CONSOLE))
    with Guest.adopt("g") as guest:
        guest.expect("idle: ready")
        guest.reset()
        guest.expect("idle: ready")
        assert guest.console.count("idle: ready") == 2
    check_nothing_left(runtime)


def _connected(path: Path) -> bool:
    """Whether QEMU has a client at the listening socket `path` (unix sockets in state 03 with that name)."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(f" {path}") and line.split()[5] == "03" for line in lines)


def test_what_it_prints_without_an_owner_is_in_its_log_and_does_not_stop_it(runtime: Path) -> None:
    killed()
    path = rundir.find("g").path
    until("the backend is at the console", lambda: _connected(path / rundir.CONSOLE))
    # A reset, by another process at QEMU's own socket, has it print again.
    import socket

    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.connect(str(path / rundir.QMP))
        qmp.sendall(b'{"execute": "qmp_capabilities"}{"execute": "system_reset"}')
        until("it has booted again", lambda: (path / rundir.CONSOLE_LOG).read_bytes().count(b"idle: ready") == 2)
    with Guest.adopt("g") as guest:
        assert guest.console.count("idle: ready") == 2
        assert guest.inject(0, 0, wait=True).outcome == "completed"


@pytest.mark.parametrize("how", ["name", "all", "in Python"])
def test_it_can_be_ended(runtime: Path, how: str) -> None:
    killed()
    if how == "in Python":
        with Guest.adopt("g"):
            pass
    else:
        assert ask(runtime, "stop", *(["g"] if how == "name" else ["--ownerless"])) == "guest 'g' is ended\n"
    assert not processes(runtime)
    assert not left(runtime)


def test_stop_ends_a_guest_of_somebody_else_too(runtime: Path) -> None:
    process = command(runtime, "run", "--name", "g", *IDLE)
    until("it is there", lambda: [guest.name for guest in rundir.running()] == ["g"] and len(processes(runtime)) == 2)
    until("it boots", lambda: "g " in ask(runtime, "list"))
    ask(runtime, "stop", "g")
    process.communicate(timeout=30)
    assert process.returncode == 143, "it did not end by itself"
    check_nothing_left(runtime)


def test_it_ends_by_itself_and_leaves_nothing(runtime: Path) -> None:
    """Nobody but its backend sees it."""
    killed()
    (qemu,) = (pid for pid in processes(runtime) if b"-machine" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(qemu, signal.SIGTERM)
    check_nothing_left(runtime)


def test_all_of_it_killed_leaves_nothing_for_the_next_list(runtime: Path) -> None:
    killed()
    for pid in processes(runtime):
        os.kill(pid, signal.SIGKILL)
    until("they end", lambda: not processes(runtime))
    assert rundir.running() == []
    assert not left(runtime)


def test_attach_is_a_console_as_runs(runtime: Path) -> None:
    killed()
    environment = dict(os.environ | {"XDG_RUNTIME_DIR": str(runtime)})
    terminal = pexpect.spawn(
        sys.executable, ["-m", "qemu_sdei", "attach", "g"], env=environment, timeout=60, encoding="utf-8"
    )
    terminal.expect("guest 'g' is running; Ctrl-] detaches from it or ends it")
    terminal.expect("idle: ready")  # from before
    assert "has an owner" in ask(runtime, "attach", "g", status=2)
    assert json.loads(ask(runtime, "migrate", "g", "g3", "--json", "-q"))["destination"] == "g3"
    terminal.send("\x1dq")
    terminal.expect("ending the guest")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    check_nothing_left(runtime)


def test_only_if_asked_for_does_the_guest_die_with_its_owner(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = command(runtime, "run", "--name", "g", "--die-with-owner", *IDLE)
    until("it is there", lambda: len(processes(runtime)) == 2)
    process.kill()
    process.communicate()
    check_nothing_left(runtime)
    monkeypatch.setenv(DIE_WITH_OWNER, "1")
    killed()
    check_nothing_left(runtime)


ENDS = {
    "the interpreter's end": ("", "", 0),
    "an exception": ("", "raise ValueError", 1),
    "sys.exit": ("", "sys.exit(3)", 3),
    "SIGTERM": ("", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
    "SIGHUP": ("", "os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)", -signal.SIGHUP),
    "SIGINT": ("", "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT),
    "a handler of its own": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))",
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
        5,
    ),
    "a fork that ends first": ("", "pid = os.fork()\nif pid: os.waitpid(pid, 0); guest.qmp('query-status')", 0),
}


SAME = {"sys.exit", "SIGHUP"}
"""As the interpreter's end, and as SIGTERM."""


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=pytest.mark.slow) if what in SAME else what for what in ENDS]
)
def test_an_orderly_end_of_the_owner_ends_its_guest(runtime: Path, what: str) -> None:
    before, then, status = ENDS[what]
    with owner(then, before) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == status, err.decode()
    assert not processes(runtime)
    assert not left(runtime)


def test_a_guest_that_cannot_be_adopted_goes_on(runtime: Path) -> None:
    killed()
    directory = rundir.find("g").path
    (directory / rundir.QMP).rename(directory / "away")
    guest = Guest.adopt("g")
    object.__setattr__(guest.options, "start_timeout", 2.0)
    with pytest.raises(GuestError, match="QEMU did not answer: no answer and no progress for 2 s"):
        guest.start()
    (found,) = rundir.running()
    assert not found.owned
    (directory / "away").rename(directory / rundir.QMP)
    with Guest.adopt("g") as again:
        assert again.inject(0, 1, wait=True).outcome == "completed"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        None,
        *(
            pytest.param(content, marks=pytest.mark.slow)
            for content in ("", "[]", '{"format": "qemu-sdei-run", "version": 9, "plan": {}}')
        ),
    ],
)
def test_one_whose_description_is_damaged_can_still_be_ended(runtime: Path, content: str | None) -> None:
    killed()
    file = rundir.find("g").path / rundir.RUN
    if content is None:
        data = json.loads(file.read_text())
        data["plan"]["options"]["unheard of"] = 1
        content = json.dumps(data)
    file.write_text(content)
    with pytest.raises(UsageError, match=r"cannot be taken over: its run\.json"):
        Guest.adopt("g")
    assert ask(runtime, "stop", "g") == "guest 'g' is ended\n"
    assert not processes(runtime)


LINUX = """
import time
from qemu_sdei import Guest, GuestOptions
guest = Guest(GuestOptions(name="g"))
guest.start()
guest.run("cd /tmp; (sleep 2; echo words while nobody owned it >/dev/console) &")
print("up", flush=True)
time.sleep(1000)
"""


@pytest.mark.usefixtures("linux")
def test_linux_its_shell_and_what_it_printed_meanwhile(runtime: Path) -> None:
    with Command([sys.executable, "-c", LINUX], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
    log = rundir.find("g").path / rundir.CONSOLE_LOG
    until("it is in the log", lambda: b"words while nobody owned it" in log.read_bytes())
    with Guest.adopt("g") as guest:
        guest.expect("words while nobody owned it")
        assert plain(guest.run("pwd").output) == "/tmp\n", "the same shell"
        guest.run("echo 0 >/sys/devices/system/cpu/cpu1/online")
        assert [vcpu["power"] for vcpu in guest.status()["pes"]] == ["on", "off"]
        assert guest.poweroff().guest
    check_nothing_left(runtime)


def test_options_come_back(runtime: Path) -> None:
    """What the new owner knows is what the old one was told."""
    from qemu_sdei.vm.description import Description
    from qemu_sdei.vm.plan import prepare

    options = GuestOptions(
        kernel="builtin:bench", sdei_slots=(1, 2), qemu_args=["-name", "x"], files={}, memory="128M", smp=3, name="o"
    )
    plan = prepare(options)
    Description(plan, "abc").write(runtime)
    again = Description.read(runtime)
    assert again.nonce == "abc"
    assert again.plan.options.sdei_slots == (1, 2)
    assert list(again.plan.options.qemu_args) == ["-name", "x"]
    assert (again.plan.qemu, again.plan.ram_size, again.plan.devices) == (plan.qemu, plan.ram_size, plan.devices)
