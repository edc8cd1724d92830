"""Migrations that fail, are cancelled, or get in each other's way: the guest goes on, somewhere, and nothing is left.

And those of guests that hold something of the host: disks, shared directories, ports.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm import qcow2
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.supervisor import Supervisor
from tests.guest.guests import at, check_nothing_left, command, plain, processes, until
from tests.guest.load import EventLoad

pytestmark = pytest.mark.guest

LIMIT = 20.0
HTTP = b"GET / HTTP/1.0\r\n\r\n"


def idle(**more: Any) -> GuestOptions:
    """A guest that handles event 0 on both CPUs and does nothing else."""
    return GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="64M", **more)


def goes_on(guest: Guest) -> None:
    """It handles events on both CPUs, also after it was reset."""
    for vcpu in (0, 1):
        assert guest.inject(0, vcpu, wait=True, timeout=LIMIT).outcome == "completed"


def migrates(guest: Guest, name: str) -> bool:
    """Whether it is free to, and then has."""
    try:
        return guest.migrate(name).destination == name
    except UsageError:  # it is "being migrated already"
        return False


def kill(directory: Path, victim: str) -> None:
    """Kill the QEMU, or the backend, that runs in a run directory."""
    for pid in processes(directory):
        if (b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes()) is (victim == "qemu"):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("phase", "route", "victim"),
    [("verify", "copy", "qemu"), ("restore", "copy", "qemu"), ("restore", "shared", "backend")],
)
def test_destination_dies_late(phase: str, route: str, victim: str, runtime: Path) -> None:
    """Whatever was brought there already, the guest goes on at the source with all its events, and its console."""
    with Guest(idle(name="a")) as guest:
        guest.expect("idle: ready")
        report = at(phase, lambda: kill(runtime / "qemu-sdei" / "b", victim))
        with EventLoad(guest, (0,), 2) as load, pytest.raises(GuestError, match="runs on as 'a'"):
            guest.migrate("b", route=route, report=report)
        until("all are delivered", lambda: guest.status()["counts"]["completed"] == load.delivered)
        assert guest.name == "a"
        assert guest.power_off is None
        goes_on(guest)
        guest.reset()
        guest.expect("idle: ready")
        assert guest.migrate("b", route=route).destination == "b"
        goes_on(guest)
    check_nothing_left(runtime)


@pytest.mark.timeout(90)
def test_destination_is_slow_to_end(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backend has taken the guest over, and lives on while the guest is resumed in the same RAM: it must not look
    at it any more, or it answers calls of a guest that is the source's.
    """
    execute, inherit, stop = Supervisor.execute, Supervisor.inherit, Supervisor.stop

    async def slow_to_quit(self: Supervisor, name: str, arguments: dict[str, object]) -> object:
        return {} if name == "quit" and self.name == "b" else await execute(self, name, arguments)

    async def broken(self: Supervisor, source: Supervisor) -> None:
        await inherit(self, source)
        raise GuestError("it broke")

    async def slow_to_stop(self: Supervisor) -> None:
        if self.name == "b":
            enough = load.delivered + 1500
            async with asyncio.timeout(LIMIT):
                while load.delivered < enough:
                    await asyncio.sleep(0.01)
        await stop(self)

    with Guest(idle(name="a")) as guest, monkeypatch.context() as patch:
        guest.expect("idle: ready")
        patch.setattr(Supervisor, "execute", slow_to_quit)
        patch.setattr(Supervisor, "inherit", broken)
        patch.setattr(Supervisor, "stop", slow_to_stop)
        with EventLoad(guest, (0,), 2) as load, pytest.raises(GuestError, match="runs on as 'a': it broke"):
            guest.migrate("b", route="shared")
        until("all are delivered", lambda: guest.status()["counts"]["completed"] == load.delivered)
        assert guest.status()["counts"]["rejected"] == 0
        goes_on(guest)
        patch.undo()
        assert guest.migrate("b").destination == "b"
        goes_on(guest)
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("phase", ["start", "ram", "restore"])
def test_interrupted(phase: str, runtime: Path) -> None:
    """Ctrl-C in a script: the guest is where it was, or has just arrived; and can be migrated."""
    with Guest(idle(name="a")) as guest:
        guest.expect("idle: ready")
        with pytest.raises(KeyboardInterrupt):
            guest.migrate("b", report=at(phase, lambda: os.kill(os.getpid(), signal.SIGINT)))
        goes_on(guest)
        until("the destination is gone", lambda: migrates(guest, "c"))
        goes_on(guest)
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_owner_is_ended_while_its_guest_migrates(runtime: Path) -> None:
    """Ctrl-C in its own terminal ends source, destination, and the command that asked for it."""
    with (runtime / "out").open("wb") as out:
        words = ("--kernel", "builtin:bench", "--append", "mode=idle", "--memory", "64M")
        owner = command(runtime, "run", "--name", "a", *words, stdout=out)
        until("the guest is up", lambda: b"idle: ready" in (runtime / "out").read_bytes())
        # It never reaches its hold point: it is amid the migration for as long as we like.
        asked = command(runtime, "migrate", "a", "b", "--hold", "running")
        assert asked.stderr is not None
        until("it waits", lambda: b"waiting" in os.read(asked.stderr.fileno(), 1000))
        late = command(runtime, "migrate", "a", "c")
        assert b"already" in late.communicate(timeout=LIMIT)[1]
        assert late.returncode == 2
        owner.send_signal(signal.SIGINT)
        owner.communicate(timeout=LIMIT)
        _, said = asked.communicate(timeout=LIMIT)
        assert asked.returncode == 1
        assert b"went away" in said
    (runtime / "out").unlink()
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_destination_that_cannot_start(runtime: Path) -> None:
    """What its QEMU has to say is said, and the guest goes on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Only one QEMU can have the port, and we know nothing of it.
    with Guest(idle(name="a", qemu_args=("-netdev", f"user,id=mine,hostfwd=tcp:127.0.0.1:{port}-:1"))) as guest:
        guest.expect("idle: ready")
        with pytest.raises(UsageError, match=r"QEMU does not take what it was given .*host forwarding rule"):
            guest.migrate("b")
        goes_on(guest)
        assert guest.name == "a"
        assert guest.power_off is None
    check_nothing_left(runtime)


@pytest.mark.timeout(100)
def test_two_at_once_and_one_at_a_time(runtime: Path) -> None:
    """Two guests migrate side by side, there and back, under events; one guest does one thing at a time."""
    with Guest(idle(name="a")) as first, Guest(idle(name="x")) as second:
        for guest in (first, second):
            guest.expect("idle: ready")
        with EventLoad(first, (0,), 2) as one, EventLoad(second, (0,), 2) as other:
            errors: list[BaseException] = []

            def move(guest: Guest, names: str) -> None:
                try:
                    for name in names:
                        guest.migrate(name, route="copy" if name in "bx" else "shared")
                except BaseException as error:
                    errors.append(error)

            movers = [threading.Thread(target=move, args=pair) for pair in ((first, "baba"), (second, "yxyx"))]
            for mover in movers:
                mover.start()
            for mover in movers:
                mover.join(80)
            assert not errors
        for guest, load in ((first, one), (second, other)):
            until("all are delivered", lambda g=guest, n=load: g.status()["counts"]["completed"] == n.delivered)
            assert not load.refused
            goes_on(guest)
        refused: list[str] = []

        def ask_again() -> None:
            for ask in (lambda: first.migrate("c"), lambda: first.snapshot("c"), lambda: first.save(runtime / "c")):
                try:
                    ask()
                except UsageError as error:
                    refused.append(str(error))

        again = threading.Thread(target=ask_again)
        first.migrate("b", report=at("start", again.start))
        again.join(LIMIT)
        assert refused == ["the guest is being migrated, or saved, already"] * 3
    check_nothing_left(runtime)


@pytest.mark.timeout(200)
def test_what_a_guest_has_of_the_host(linux: Path, runtime: Path, tmp_path: Path) -> None:
    """Disks and forwarded ports go along, also if a migration fails; a mounted share says why it does not."""
    raw, image, share = tmp_path / "raw", tmp_path / "qcow2", tmp_path / "share"
    raw.write_bytes(bytes(1 << 16))
    qcow2.create(image)
    share.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = GuestOptions(
        series="6.1",
        name="a",
        drives=(str(raw), str(image)),
        shares=(f"{share}:src",),
        forwards=(f"{port}:80",),
    )
    with Guest(options) as guest:
        guest.run("dmesg -n 1; mkdir /www; echo from the guest >/www/index.html; httpd -p 80 -h /www")

        def check(word: str) -> None:
            for disk in ("vda", "vdb"):
                assert guest.run(f"echo {word} | dd of=/dev/{disk} conv=sync,fsync 2>/dev/null").status == 0
            read = "echo 3 >/proc/sys/vm/drop_caches; head -c 4 /dev/vda; head -c 4 /dev/vdb"
            assert plain(guest.run(read).output) == 2 * word
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT) as connection:
                connection.settimeout(LIMIT)
                connection.sendall(HTTP)
                text = b""
                while piece := connection.recv(4096):
                    text += piece
            assert text.endswith(b"from the guest\n")

        check("one1")
        with pytest.raises(GuestError, match=r"runs on as 'a': .*is mounted in the guest using mount_tag 'src'"):
            guest.migrate("b")
        check("two2")
        guest.run("umount /mnt/src")
        guest.migrate("b")
        check("thr3")
        with pytest.raises(GuestError, match="runs on as 'b'"):
            guest.migrate("a", report=at("ram", lambda: kill(runtime / "qemu-sdei" / "a", "qemu")))
        check("fou4")
        guest.migrate("a")
        check("fiv5")
        assert plain(guest.run("echo on").output) == "on\n"
        assert guest.poweroff().guest
    assert raw.read_bytes()[:4] == b"fiv5"
    check_nothing_left(runtime)
