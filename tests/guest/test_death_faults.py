"""What a guest needs goes away: QMP, room on a disk or in memory, its QEMU, its owner or a backend amid a migration."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, LostGuestError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import DIE_WITH_OWNER, GuestOptions
from qemu_sdei.vm.supervisor import Supervisor
from tests.guest.guests import Command, check_nothing_left, command, processes, until
from tests.guest.load import EventLoad, at_rest

pytestmark = pytest.mark.guest


def idle(**more: object) -> GuestOptions:
    return GuestOptions(
        **{"kernel": "builtin:bench", "append": "mode=idle smp=2", "memory": "128M", "name": "g", **more}  # type: ignore[arg-type]
    )


def works(guest: Guest) -> None:
    assert guest.inject(0, 1, wait=True, timeout=20).outcome == "completed"


@contextlib.contextmanager
def small_file_system(size: str) -> Iterator[Path]:
    """A tmpfs of `size`; the test is skipped for users who cannot mount one."""
    path = Path("/tmp") / f"qs-{os.urandom(4).hex()}"
    path.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)], capture_output=True, timeout=10
    )
    try:
        if mounted.returncode != 0:
            pytest.skip("no tmpfs can be mounted")
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], capture_output=True, timeout=10)
        path.rmdir()


def fill(path: Path) -> Path:
    """Leave no room in the file system of `path`."""
    file = path / "filler"
    with file.open("wb", buffering=0) as out:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    out.write(bytes(size))
    return file


# ---- QMP


def break_qmp(guest: Guest) -> None:
    """Break the owner's connection."""
    client = guest.placement.supervisor.qmp._client
    assert client is not None
    guest.loop.call(client.disconnect(), 10)


def test_a_broken_qmp_connection_is_made_again(runtime: Path) -> None:
    with Guest(idle()) as guest:
        guest.expect("idle: ready")
        for _ in range(3):
            break_qmp(guest)
            assert guest.qmp("query-status")["status"] == "running"
        guest.reset()
        assert len(guest.resets) == 1, "events come too"
        guest.expect("idle: ready")
        works(guest)
        assert guest.migrate("g2").destination == "g2"
        assert guest.poweroff().reason == "host-qmp-quit"
    check_nothing_left(runtime)


@pytest.mark.parametrize("then", ["removed", "taken"])
def test_without_qmp_what_needs_it_says_so_and_the_guest_goes_on(runtime: Path, then: str) -> None:
    with Guest(idle()) as guest:
        guest.expect("idle: ready")
        path = runtime / "qemu-sdei" / "g" / rundir.QMP
        other = socket.socket(socket.AF_UNIX)
        with other:
            if then == "removed":
                path.rename(path.with_name("away"))
            else:
                other.connect(str(path))  # waits in QEMU's queue, and is the next
            break_qmp(guest)
            with pytest.raises(
                GuestError, match=rf"query-status: QEMU cannot be reached at .*/{rundir.QMP}.*nothing was"
            ):
                guest.qmp("query-status")
            works(guest)
            assert guest.power_off is None
            with pytest.raises(GuestError, match="runs on"):
                guest.migrate("g2")
            works(guest)
        if then == "removed":
            path.with_name("away").rename(path)
        until("QMP is there again", lambda: guest.placement.supervisor.qmp.connected)
        assert guest.qmp("query-status")["status"] == "running"
    check_nothing_left(runtime)


# ---- QEMU


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_a_killed_qemu_is_a_clear_end(runtime: Path, number: signal.Signals) -> None:
    with Guest(idle()) as guest:
        guest.expect("idle: ready")
        assert guest.qemu_pid is not None
        with EventLoad(guest, (0,), 2) as load:
            until("events are on their way", lambda: load.delivered > 20)
            os.kill(guest.qemu_pid, number)
            with pytest.raises(LostGuestError, match=f"QEMU was killed by {number.name}"):
                guest.expect("never")
            load.error = None
        with pytest.raises(LostGuestError):
            guest.inject(0, 0)
        with pytest.raises(LostGuestError, match="QEMU is gone"):
            guest.qmp("query-status")
        check_nothing_left(runtime)


# ---- no room


def test_a_trace_without_room(runtime: Path) -> None:
    process = command(runtime, "run", "-q", "--trace", "/dev/full", "--kernel", "builtin:selftest", "--memory", "128M")
    out, err = process.communicate(timeout=60)
    assert b"Result: OK" in out
    assert process.returncode == 0
    assert err.decode().splitlines() == [
        "qemu-sdei: warning: the trace /dev/full is not complete, the guest goes on without it: No space left on device"
    ]
    check_nothing_left(runtime)


def test_a_run_directory_that_becomes_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Journal, logs and state document cannot grow; the guest goes on, through deaths of its backend as well."""
    with small_file_system("8M") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
        with Guest(idle()) as guest:
            guest.expect("idle: ready")
            filler = fill(path)
            for _ in range(700):  # more than the journal holds
                guest.inject(0, 0, wait=True, timeout=20)
            guest.reset()
            guest.expect("idle: ready")
            assert guest.backend_pid is not None
            os.kill(guest.backend_pid, signal.SIGKILL)
            until("another backend", lambda: guest.backend_starts == 2)
            works(guest)
            with pytest.raises((GuestError, UsageError), match="No space left on device"):
                guest.migrate("g2")
            works(guest)
            with pytest.raises(GuestError, match="not saved and runs on"):
                guest.save(path / "saved")
            works(guest)
            assert not (path / "saved").exists()
            filler.unlink()
            assert guest.migrate("g2").destination == "g2"
            works(guest)
        check_nothing_left(path)


def test_a_run_directory_without_room_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (0, 40 << 10):
        with small_file_system("1M") as path:
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
            filler = fill(path)
            os.truncate(filler, filler.stat().st_size - size)
            with pytest.raises(UsageError, match="No space left on device; make room there, or set XDG_RUNTIME_DIR"):
                Guest(idle()).start()
            filler.unlink()
            check_nothing_left(path)


def test_ram_without_room(runtime: Path) -> None:
    """Told before where that can be; else the end says where to look, and nothing is left."""
    with small_file_system("160M") as path:
        with pytest.raises(UsageError, match=r"has 160M free, the guest's RAM needs 200M"):
            Guest(idle(memory="200M", memory_path=path)).start()
        with Guest(idle(memory_path=path)) as guest:
            guest.expect("idle: ready")
            fill(path)
            with pytest.raises(LostGuestError):  # QEMU touches all of it now
                guest.qmp("pmemsave", val=0x4000_0000, size=100 << 20, filename="/dev/null")
            with pytest.raises(LostGuestError, match=f"SIGBUS: most likely there was no room left in {path}"):
                guest.wait_off(10)
    check_nothing_left(runtime)


# ---- the owner, amid a migration

MOVING = """
import os, signal, sys
from qemu_sdei import Guest, GuestOptions
from qemu_sdei.vm.supervisor import Supervisor
from qemu_sdei.migration.backend_link import BackendLink
phase, route = sys.argv[1:]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def report(step):
    if step.phase == phase:
        die()
if phase == "committed":
    whole = Supervisor.inherit
    async def inherit(self, source):
        await whole(self, source)
        die()
    Supervisor.inherit = inherit
if phase == "running":
    request_as_it_is = BackendLink.request
    async def request(self, command, **more):
        if command == "moved":
            die()
        return await request_as_it_is(self, command, **more)
    BackendLink.request = request
guest = Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M", name="g"))
guest.start()
guest.expect("idle: ready")
for n in range(20):
    guest.inject(0, n % 2, wait=True)
print("up", flush=True)
guest.migrate("g2", route=route, report=report)
"""


@pytest.mark.parametrize(
    ("phase", "route", "name"),
    [
        ("start", "shared", "g"),
        ("ram", "shared", "g"),
        ("ram", "live", "g"),
        ("verify", "copy", "g"),
        ("restore", "shared", "g"),
        ("committed", "shared", "g2"),
        ("running", "shared", "g2"),
    ],
)
def test_an_owner_that_is_killed_amid_a_migration(
    phase: str, route: str, name: str, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest is at one of the two, whole; the other one goes by itself; whoever adopts it has it go on."""
    monkeypatch.delenv(DIE_WITH_OWNER, raising=False)
    with Command([sys.executable, "-c", MOVING, phase, route], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"up\n"
    assert process.returncode == -signal.SIGKILL
    try:
        until("one is left", lambda: len(processes(runtime)) == 2)
        (found,) = rundir.running()
        assert (found.name, found.owned) == (name, False)
        with Guest.adopt(name) as guest:
            assert guest.qmp("query-status")["status"] == "running"
            counts = guest.status()["counts"]
            assert counts["delivered"] == counts["completed"] == 20
            assert counts["rejected"] == 0
            for vcpu in range(2):
                guest.inject(0, vcpu, wait=True, timeout=20)
            guest.migrate("g3")
            works(guest)
        check_nothing_left(runtime)
    finally:
        command(runtime, "stop", "--ownerless").wait(30)


# ---- the destination's backend


@pytest.mark.parametrize("when", ["before restore", "after restore", "after cont"])
def test_the_destinations_backend_is_killed(when: str, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the guest is there it goes on at the source; afterwards at the destination, by its journal."""
    whole = Supervisor.inherit

    def kill() -> None:
        for pid in processes(runtime / "qemu-sdei" / "g2"):
            if b"qemu_sdei.backend" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    async def inherit(self: Supervisor, source: Supervisor) -> None:
        if when == "after restore":
            kill()
        await whole(self, source)
        if when == "after cont":
            kill()

    monkeypatch.setattr(Supervisor, "inherit", inherit)

    def report(step: object) -> None:
        if when == "before restore" and getattr(step, "phase", "") == "restore":
            kill()

    with Guest(idle()) as guest:
        guest.expect("idle: ready")
        with EventLoad(guest, (0,), 2) as load:
            until("events are on their way", lambda: load.delivered > 20)
            if when == "before restore":
                with pytest.raises(GuestError, match="runs on as 'g'"):
                    guest.migrate("g2", report=report)
            else:
                assert guest.migrate("g2").destination == "g2"
            before = load.delivered
            until("events are accepted", lambda: load.delivered > before + 20)
        counts = at_rest(guest)
        assert load.delivered <= counts["delivered"] <= load.delivered + sum(load.unknown.values())
        assert counts["rejected"] == 0
        works(guest)
    check_nothing_left(runtime)
