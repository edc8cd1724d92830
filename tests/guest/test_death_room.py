"""Room on a disk or in memory, or QMP, goes away in the middle of a migration, a save or a snapshot.

One line says so, the guest goes on where it was with its events, and nothing is left of the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, SdeiError, StandsStillError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from qemu_sdei.vm.supervisor import Supervisor
from tests.guest.guests import at, check_nothing_left, processes, until
from tests.guest.load import EventLoad
from tests.guest.test_death_faults import fill, small_file_system

pytestmark = pytest.mark.guest

CONTENT = 24 << 20
ROUTES = ("shared", "copy", "live", "postcopy")
SENT = ("copy", "live", "postcopy")


def idle(**more: object) -> GuestOptions:
    return GuestOptions(
        **{"kernel": "builtin:bench", "append": "mode=idle smp=2", "memory": "64M", "name": "a", **more}  # type: ignore[arg-type]
    )


def slow(cases: Sequence[tuple[str, ...]], *normal: tuple[str, ...]) -> list[object]:
    """All cases; those that are not `normal` are slow."""
    return [case if case in normal else pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def furnish(guest: Guest) -> None:
    """Have it use some RAM."""
    guest.expect("idle: ready")
    os.pwrite(guest.placement.ram.fd, os.urandom(CONTENT), 24 << 20)


@contextlib.contextmanager
def one_line(*words: str) -> Iterator[None]:
    """It fails with one line that has these words."""
    with pytest.raises(SdeiError) as caught:
        yield
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def goes_on(guest: Guest, load: EventLoad) -> None:
    """It takes events still, and has lost none."""
    before = load.delivered
    until("events are accepted", lambda: load.delivered > before + 10)


def settled(guest: Guest, load: EventLoad) -> None:
    """All that was accepted was handled, once."""
    until("all are delivered", lambda: guest.status()["counts"]["completed"] >= load.delivered)
    assert guest.status()["counts"]["completed"] <= load.delivered + sum(load.unknown.values())
    assert guest.status()["counts"]["rejected"] == 0
    assert not load.refused


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("route", "phase"), slow([(r, p) for r in SENT for p in ("start", "ram")]))
def test_memory_path_becomes_full(route: str, phase: str, runtime: Path) -> None:
    with small_file_system("140M") as path, Guest(idle(memory_path=path)) as guest:
        furnish(guest)
        os.posix_fallocate(guest.placement.ram.fd, 0, 64 << 20)  # it has all that it may ever need
        with EventLoad(guest, (0,), 2) as load:
            with one_line("runs on as 'a'"):
                guest.migrate("b", route=route, report=at(phase, lambda: fill(path)))
            goes_on(guest, load)
        settled(guest, load)
        (path / "filler").unlink()
        until("the destination's RAM is gone", lambda: not list(path.iterdir()))
        assert guest.migrate("b", route=route).destination == "b"
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_memory_path_without_room_for_what_is_read(runtime: Path, tmp_path: Path) -> None:
    """To send RAM QEMU reads all of it, which takes room; without that it would be killed, guest and all."""
    with small_file_system("100M") as path, Guest(idle(memory_path=path)) as guest:
        furnish(guest)
        with EventLoad(guest, (0,), 2) as load:
            with one_line("free, the guest's RAM needs"):
                guest.migrate("b", route="copy")
            fill(path)
            with one_line("free, the guest's RAM needs"):
                guest.save(tmp_path / "saved")
            assert guest.migrate("b").destination == "b"
            goes_on(guest, load)
        settled(guest, load)
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("route", "phase"), slow([(r, p) for r in ROUTES for p in ("start", "ram")]))
def test_run_directory_becomes_full(route: str, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_file_system("8M") as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
        with Guest(idle()) as guest:
            furnish(guest)
            with EventLoad(guest, (0,), 2) as load:
                moved = None
                # A document that there was before may have the room that the next one needs.
                with contextlib.suppress(GuestError, UsageError):
                    moved = guest.migrate("b", route=route, report=at(phase, lambda: fill(path)))
                assert guest.name == ("b" if moved else "a")
                goes_on(guest, load)
            settled(guest, load)
            (path / "filler").unlink()
            guest.migrate("c", route=route)
        check_nothing_left(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("where", ["save", pytest.param("to-file", marks=pytest.mark.slow)])
def test_target_of_a_save_is_full(where: str, runtime: Path) -> None:
    with small_file_system("10M") as path, Guest(idle()) as guest:
        furnish(guest)
        with EventLoad(guest, (0,), 2) as load:
            with one_line("the guest was not saved and runs on: "):
                guest.save(path / "saved", end=where == "to-file")
            goes_on(guest, load)
        settled(guest, load)
        assert not list(path.iterdir())
    check_nothing_left(runtime)


@pytest.mark.timeout(60)
def test_disk_of_a_snapshot_is_full(runtime: Path) -> None:
    with small_file_system("10M") as path, Guest(idle(snapshots=path / "image")) as guest:
        furnish(guest)
        with EventLoad(guest, (0,), 2) as load:
            with one_line("runs on"):
                guest.snapshot("one")
            goes_on(guest, load)
        settled(guest, load)
        assert guest.snapshots() == []
    check_nothing_left(runtime)


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group of at most `limit` bytes; the test is skipped where none can be made."""
    for base, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(base) / f"qs-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(limit))
            yield group
            return
        except OSError:
            continue
        finally:
            until("the group is empty", lambda g=group: not (g / "cgroup.procs").read_text())
            group.rmdir()
    pytest.skip("no control group for memory can be made")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("route", "victim"), slow([(r, "qemu") for r in SENT], ("live", "qemu")))
def test_memory_limit_at_the_destination(route: str, victim: str, runtime: Path) -> None:
    with memory_group(8 << 20) as group, Guest(idle()) as guest:
        furnish(guest)

        def limit() -> None:
            for pid in processes(runtime / "qemu-sdei" / "b"):
                if b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    (group / "cgroup.procs").write_text(str(pid))

        with EventLoad(guest, (0,), 2) as load:
            with one_line("runs on as 'a'"):
                guest.migrate("b", route=route, report=at("ram", limit))
            goes_on(guest, load)
        settled(guest, load)
        assert guest.migrate("b", route=route).destination == "b"
    check_nothing_left(runtime)


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> dict[str, Supervisor]:
    """Each side that was started, by its name."""
    found: dict[str, Supervisor] = {}
    start = Supervisor.start

    async def started(self: Supervisor, timeout: float) -> None:
        found[self.name] = self
        await start(self, timeout)

    monkeypatch.setattr(Supervisor, "start", started)
    return found


CASES = [(r, p, s, u) for r in ROUTES for p in ("ram", "restore") for s in "ab" for u in ("closed", "unlinked")]


@pytest.mark.timeout(100)
@pytest.mark.parametrize(
    ("route", "phase", "side", "how"),
    slow(CASES, ("live", "ram", "a", "unlinked")),
)
def test_qmp_goes_away(
    route: str, phase: str, side: str, how: str, runtime: Path, sides: dict[str, Supervisor]
) -> None:
    """It is moved, or it is not; where QEMU could not be told to go on, it does when QMP is there again."""
    closing: list[asyncio.Task[None]] = []
    socket = runtime / "qemu-sdei" / side / rundir.QMP

    def break_off() -> None:
        if how == "unlinked":
            socket.rename(socket.with_name("away"))
        client = sides[side].qmp._client
        assert client is not None
        closing.append(asyncio.get_running_loop().create_task(client.disconnect()))

    def back() -> None:
        with contextlib.suppress(OSError):
            socket.with_name("away").rename(socket)

    with Guest(idle()) as guest:
        furnish(guest)
        with EventLoad(guest, (0,), 2) as load:
            error = None
            later = threading.Timer(12, back)  # longer than QMP is tried for
            later.start()
            try:
                guest.migrate("b", route=route, report=at(phase, break_off))
            except GuestError as failed:
                error = str(failed)
                assert "\n" not in error
                assert "terminating" not in error
                stands = isinstance(failed, StandsStillError)
                assert stands is ("runs on as 'a'" not in error)
                assert not stands or (how, side) == ("unlinked", "a")
            later.cancel()
            back()
            assert guest.name == ("b" if error is None else "a")
            goes_on(guest, load)
            assert guest.qmp("query-status")["status"] == "running"
        settled(guest, load)
        assert guest.migrate("c", route=route).destination == "c"
    check_nothing_left(runtime)
