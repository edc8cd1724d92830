"""Run directories: names that are taken, owners that died, directories of other people."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qemu_sdei import guest_identity, rundir
from qemu_sdei.errors import LostGuestError, UsageError
from qemu_sdei.rundir import RunDirectory

OWNER = """
import sys
from qemu_sdei.rundir import RunDirectory
RunDirectory.create(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def owner(name: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns the run directory of guest `name`."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_run_directory_is_private_and_goes_with_its_owner(runtime: Path) -> None:
    directory = RunDirectory.create("one")
    assert directory.path == runtime / "qemu-sdei" / "one"
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert directory.path.parent.stat().st_mode & 0o777 == 0o700
    assert [(guest.name, guest.pid) for guest in rundir.running()] == [("one", os.getpid())]
    directory.remove()
    directory.remove()
    assert not directory.path.exists()
    assert rundir.running() == []


def test_what_is_just_being_started_there_does_not_keep_it(runtime: Path) -> None:
    """A backend opens its log by the path, whenever it comes to it."""
    over = threading.Event()
    path = runtime / "qemu-sdei" / "one" / rundir.BACKEND_LOG

    def log() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                path.open("a").close()

    thread = threading.Thread(target=log)
    thread.start()
    try:
        for _ in range(100):
            directory = RunDirectory.create("one")
            directory.remove()
            assert [entry.name for entry in path.parent.parent.iterdir()] == [".lock"]
    finally:
        over.set()
        thread.join()


def test_a_removal_that_was_killed_is_finished_by_the_next_look(runtime: Path) -> None:
    RunDirectory.create("one").remove()
    left = runtime / "qemu-sdei" / ".going-0123456789abcdef"
    left.mkdir()
    (left / rundir.LOCK).touch()
    assert rundir.running() == []
    assert not left.exists()


def test_a_taken_name_says_by_whom(runtime: Path) -> None:
    with owner("mine") as process:
        with pytest.raises(UsageError, match=rf"'mine' is taken by process {process.pid}"):
            RunDirectory.create("mine")


def test_without_a_name_the_first_free_one_is_taken(runtime: Path) -> None:
    names = [RunDirectory.create(), RunDirectory.create()]
    with owner("guest-3"):
        names.append(RunDirectory.create())
    assert [directory.name for directory in names] == ["guest", "guest-2", "guest-4"]
    for directory in names:
        directory.remove()


def test_who_moves_keeps_its_stem(runtime: Path) -> None:
    """A script that knows the guest's name finds it again."""
    names = [RunDirectory.create("demo")]
    try:
        for _ in range(3):
            names.append(RunDirectory.create(None, names[-1].name))
        assert [directory.name for directory in names] == ["demo", "demo-2", "demo-3", "demo-4"]
        names.pop(0).remove()
        names.append(RunDirectory.create(None, "demo-4"))
        assert names[-1].name == "demo"
        names.append(RunDirectory.create(None, "x" * 32))
        assert names[-1].name == "x" * 28
    finally:
        for directory in names:
            directory.remove()


def test_what_a_killed_owner_left_is_removed_by_the_next_look(runtime: Path) -> None:
    with owner("gone") as process:
        process.kill()
        process.wait()
        left = runtime / "qemu-sdei" / "gone"
        assert left.is_dir()
        assert rundir.running() == []
        assert not left.exists()


def test_the_name_of_a_killed_owner_is_free_again(runtime: Path) -> None:
    with owner("again") as process:
        process.kill()
        process.wait()
        (runtime / "qemu-sdei" / "again" / "old").write_text("old")
        directory = RunDirectory.create("again")
        assert not (directory / "old").exists()
        directory.remove()


def test_an_orphan_does_not_remove_the_new_guest_of_its_name(runtime: Path) -> None:
    with owner("name"):
        path = runtime / "qemu-sdei" / "name"
        assert not rundir.remove_if_dead(path, patience=0)
        assert path.is_dir()
    assert rundir.remove_if_dead(path)
    assert not path.exists()
    assert rundir.remove_if_dead(path)


def test_a_path_that_no_socket_can_have(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = runtime / ("d" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(UsageError, match=r"socket path is too long .* set XDG_RUNTIME_DIR"):
        RunDirectory.create()
    assert list(long.iterdir()) == []


def test_a_base_directory_that_is_open_to_others_is_refused(runtime: Path) -> None:
    base = runtime / "qemu-sdei"
    base.mkdir(mode=0o777)
    base.chmod(0o777)
    with pytest.raises(UsageError, match="not your directory with mode 0700"):
        RunDirectory.create()


def test_a_base_directory_that_is_a_link_is_refused(runtime: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (runtime / "qemu-sdei").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="not your directory"):
        RunDirectory.create()


@pytest.mark.parametrize("look", [rundir.running, RunDirectory.create], ids=["list", "run"])
def test_what_others_could_change_is_refused(
    runtime: Path, look: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime.chmod(0o777)
    with pytest.raises(UsageError, match="which other users can change: unset it"):
        look()
    runtime.chmod(0o700)
    RunDirectory.create().remove()
    (runtime / "qemu-sdei").chmod(0o755)
    with pytest.raises(UsageError, match="not your directory with mode 0700"):
        look()
    (runtime / "qemu-sdei").chmod(0o700)
    assert rundir.running() == []
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)  # as if it all were somebody else's
    if owner != 0:
        with pytest.raises(UsageError, match="other users can change"):
            look()
    else:
        with pytest.raises(UsageError, match="not your directory"):
            look()


@pytest.mark.parametrize("make", [lambda p: p.write_text(""), lambda p: p.symlink_to("/")])
def test_something_else_in_the_way_is_left_alone(runtime: Path, make: object) -> None:
    RunDirectory.create("x").remove()
    path = runtime / "qemu-sdei" / "guest"
    make(path)  # type: ignore[operator]
    with pytest.raises(UsageError, match="in the way"):
        RunDirectory.create("guest")
    assert rundir.running() == []
    assert path.exists()


def test_no_runtime_directory_means_one_in_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "relative", "/nonexistent"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert rundir.base_path() == Path(f"/tmp/qemu-sdei-{os.getuid()}")


def test_find_names_what_runs(runtime: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no guest named 'a' is running; none is running"):
        rundir.find("a")
    with owner("b"):
        assert rundir.find("b").control == runtime / "qemu-sdei" / "b" / "control.sock"
        with pytest.raises(UsageError, match="running: b"):
            rundir.find("a")
    with pytest.raises(UsageError, match=r"holds no guest\.json"):
        rundir.find(str(tmp_path))
    (tmp_path / rundir.CONFIG).write_text("{}")
    assert rundir.find(str(tmp_path)).control == tmp_path / "control.sock"
    with pytest.raises(UsageError, match="cannot be used"):
        rundir.find("no such\nname")


def test_each_guest_is_another_one(runtime: Path) -> None:
    found = set()
    for _ in range(3):
        directory = RunDirectory.create("g")
        assert guest_identity.is_one(guest_identity.read(directory.path))
        assert rundir.running()[0].identity == guest_identity.read(directory.path)
        found.add(guest_identity.read(directory.path))
        directory.remove()
        assert not directory.held
    assert len(found) == 3


@pytest.mark.parametrize("text", [b"", b"x" * 32, b"1" * 31, b"\xff" * 32, b"1" * 100, None])
def test_an_identity_that_is_damaged_or_missing_is_none(runtime: Path, text: bytes | None) -> None:
    directory = RunDirectory.create("g")
    (directory / guest_identity.FILE).unlink()
    if text is not None:
        (directory / guest_identity.FILE).write_bytes(text)
    assert guest_identity.read(directory.path) == ""


def test_who_has_looked_up_a_guest_does_not_take_over_the_next_one_of_its_name(runtime: Path) -> None:
    first = RunDirectory.create("g")
    (first / rundir.RUN).touch()
    stale = rundir.find("g")
    first.remove()
    second = RunDirectory.create("g")
    (second / rundir.RUN).touch()
    qemu = second.qemu_lock()  # as if it ran
    second.release()
    with pytest.raises(LostGuestError, match="has ended; another guest of that name runs now"):
        RunDirectory.adopt("g", stale.identity)
    adopted = RunDirectory.adopt("g", rundir.find("g").identity)
    adopted.remove()
    os.close(qemu)


def test_a_runtime_directory_that_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no file can have."""
    for value in ("/" + "a" * 300, "/" + "a/" * 2100):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        with pytest.raises(UsageError, match="XDG_RUNTIME_DIR"):
            rundir.running()
