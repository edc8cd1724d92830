"""Run directories: where a running guest's sockets and logs lie, who owns it, and how leftovers go away.

`$XDG_RUNTIME_DIR/qemu-sdei/NAME/`, else `/tmp/qemu-sdei-UID/NAME/`, mode 0700. The owner holds a `flock` on
`NAME/lock` for as long as it lives, and QEMU one on `NAME/qemu.lock` (it inherits the descriptor), so that the kernel
itself says who lives: no number of a process that could belong to another one by now is asked. The pid in `lock` is for
people only. Whoever creates, adopts or removes a directory holds `.lock` of the base directory meanwhile: no two of
them mix up their directories.

    owner  QEMU   run.json   the directory is
    lives                    a guest's
           lives  there      that of a guest without owner, which can be adopted
           lives             what an owner left that was killed amid a migration: QEMU is ended, the directory removed
                             a leftover: removed
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei import guest_identity, rundir_ended
from qemu_sdei.config import NAME_PATTERN, check_name
from qemu_sdei.errors import UsageError
from qemu_sdei.fetching import fetching
from qemu_sdei.locks import dying, end_holders, try_lock
from qemu_sdei.rundir_base import base_locked
from qemu_sdei.rundir_base import base_path as base_path
from qemu_sdei.rundir_base import check_socket_path as check_socket_path
from qemu_sdei.rundir_base import make_base as make_base

LOCK: Final = "lock"
QEMU_LOCK: Final = "qemu.lock"
BACKEND_LOCK: Final = "backend.lock"
"""Locked by the backend that serves: there is one at most."""
RUN: Final = "run.json"
"""What an owner must know of the guest. The directory that has it has the guest: in a migration it moves with it."""
HANDOVER: Final = "handover"
"""There while the guest is being migrated or saved: an owner that dies meanwhile leaves it stopped."""
CONFIG: Final = "guest.json"
CONTROL: Final = "control.sock"
OWNER: Final = "owner.sock"
DOORBELL: Final = "doorbell.sock"
CONSOLE: Final = "console.sock"
QMP: Final = "qmp.sock"
HELPER: Final = "helper.sock"
"""QEMU's end of the helper's serial card; one client at a time."""
ENDED_BY: Final = "ended-by"
"""Who is about to end the guest from outside, in words: for the process that runs it, and whoever waits for it."""
EXEC_PORTS: Final = 5
"""Ports of the agent's card: the first for the command that the guest was started with, the others for `exec`."""
MONITOR: Final = "monitor.bin"
INITRD: Final = "initrd.img"
CONSOLE_LOG: Final = "console.log"
TRACE: Final = "trace-ring"
"""The newest records of what happened (`qemu_sdei.trace`)."""
BACKEND_LOG: Final = "backend.log"
_GOING: Final = ".going-"
"""Begins the name of a run directory while it is removed."""
QEMU_LOG: Final = "qemu.log"
WARNING: Final = "qemu-sdei backend: warning: "
"""What those lines of the backend's log begin with that are for the user."""
JOURNAL: Final = "journal"
"""What the backend did, for the one that comes after it."""
STATE: Final = "state.json"
"""The state document of a guest that is being handed over."""
_MAX_STEM: Final = 28
"""Of a name's 32 characters: a number is to fit behind it."""


@dataclass(frozen=True)
class Running:
    """A guest that runs."""

    name: str
    path: Path
    pid: int | None
    """Process id of the owner, where its lock file says so; None without an owner."""
    owned: bool = True
    """Its owner lives."""
    identity: str = ""
    """Which guest it is; "" for one that an older version started."""

    @property
    def control(self) -> Path:
        """The control socket."""
        return self.path / CONTROL

    @property
    def owner(self) -> Path:
        """The owner socket."""
        return self.path / OWNER


def exec_socket(port: int) -> str:
    """QEMU's end of a port of the agent's card; one client at a time."""
    return f"exec-{port}.sock"


def exec_lock(port: int) -> str:
    """Locked by who uses that port."""
    return f"exec-{port}.lock"


def note_end(path: Path, who: str) -> None:
    """Tell the supervisor of the guest in run directory `path` that `who` is about to end it."""
    with contextlib.suppress(OSError):
        (path / ENDED_BY).write_text(f"{who}\n")


def ended_by(path: Path) -> str:
    """Who has ended the guest in run directory `path`, in words; "" where it was nobody."""
    try:
        with (path / ENDED_BY).open(errors="replace") as file:
            return file.read(200).strip()
    except OSError:
        return ""


def _remove_dead(path: Path) -> bool:
    """Remove run directory `path` unless it is in use; True when it is gone. The base directory is locked."""
    lock = try_lock(path / LOCK)
    if lock is None:
        return False
    try:
        qemu = try_lock(path / QEMU_LOCK)
        if qemu is None:
            if (path / RUN).exists():
                if not dying(path / QEMU_LOCK):
                    return False
            elif fetching(path / QMP):
                return False  # a guest elsewhere needs it: its backend ends it then
            end_holders(path / QEMU_LOCK)
        _erase(path)
        if qemu is not None:
            os.close(qemu)
        return True
    finally:
        os.close(lock)


def _erase(path: Path) -> None:
    """Remove a run directory, or what can be removed of it. The base directory is locked.

    First it gets another name: a backend that is just starting would make its log in it, and so keep it.
    """
    going = path.with_name(_GOING + secrets.token_hex(8))
    try:
        path.rename(going)
    except OSError:
        going = path
    shutil.rmtree(going, ignore_errors=True)


def _owner(path: Path) -> int | None:
    try:
        text = (path / LOCK).read_text()[:20].strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdigit() else None


def deserted(path: Path) -> bool:
    """Whether the guest of run directory `path` has neither an owner nor a backend: nobody starts another one."""
    if not (path / RUN).exists() or _owned(path):
        return False
    backend = try_lock(path / BACKEND_LOCK)
    if backend is not None:
        os.close(backend)
    return backend is not None


def _owned(path: Path) -> bool:
    lock = try_lock(path / LOCK)
    if lock is not None:
        os.close(lock)
    return lock is None


class RunDirectory:
    """A run directory that this process owns, from `create` to `remove`."""

    def __init__(self, name: str, path: Path, lock: int) -> None:
        self.name = name
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def create(cls, name: str | None = None, after: str = "guest") -> RunDirectory:
        """Make and lock the run directory of guest `name` (default: the first free of `after` without its number,
        `after`-2, `after`-3, ...).

        Raises `UsageError`: bad or taken name, path too long for a socket, base directory unusable.
        """
        wanted = check_name(name) if name is not None else None
        stem = re.sub(r"(?<=.)-\d+$", "", after)[:_MAX_STEM]
        _check_length(base_path() / (wanted or stem))
        base = make_base()
        try:
            return cls._create(base, wanted, stem)
        except OSError as error:
            raise UsageError(
                f"run directory below {base} cannot be made: {error.strerror}; make room there, or set XDG_RUNTIME_DIR"
            ) from None

    @classmethod
    def _create(cls, base: Path, wanted: str | None, stem: str) -> RunDirectory:
        claimed = None
        try:
            with base_locked(base):
                number = 1
                while True:
                    candidate = wanted or (stem if number == 1 else f"{stem}-{number}")
                    path = base / candidate
                    lock = _claim(path)
                    if lock is not None:
                        claimed = path
                        rundir_ended.forget(candidate)
                        return cls(candidate, path, lock)
                    if wanted is not None:
                        raise UsageError(f"guest name {wanted!r} is taken by {_taken(path, wanted)}")
                    number += 1
        except BaseException:
            if claimed is not None:  # a signal's exception
                _erase(claimed)
            raise

    @classmethod
    def adopt(cls, name: str, known: str = "") -> RunDirectory:
        """Become the owner of guest `name`, whose own was killed.

        `known`: the identity of the guest that is meant, where it was looked up before. Raises `UsageError`: it has an
        owner, or is not there; `LostGuestError`: another guest has that name now.
        """
        guest = find(name)
        try:
            with base_locked(guest.path.parent):
                lock = try_lock(guest.path / LOCK)
                if lock is None:
                    pid = _owner(guest.path)
                    raise UsageError(f"guest {name!r} has an owner, process {pid if pid is not None else '?'}")
                if guest_identity.read(guest.path) != (known or guest.identity):
                    os.close(lock)
                    raise guest_identity.another(name)
                with contextlib.suppress(OSError):  # a full disk: the number is for people only
                    os.truncate(lock, 0)
                    os.write(lock, f"{os.getpid()}\n".encode())
        except FileNotFoundError:
            raise UsageError(f"guest {name!r} has just ended") from None
        return cls(guest.name, guest.path, lock)

    def qemu_lock(self) -> int:
        """A descriptor for QEMU to inherit: it says that the directory is in use for as long as QEMU lives."""
        lock = try_lock(self.path / QEMU_LOCK)
        if lock is None:
            raise UsageError(f"another QEMU still runs in {self.path}")
        return lock

    @property
    def held(self) -> bool:
        """It is this process's still; else the path may be that of another guest."""
        return self._lock is not None

    def release(self) -> None:
        """Give up the lock and leave everything as it is: the guest goes on without an owner."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Remove the directory and give up the lock; does nothing the second time.

        Raises nothing: what cannot be removed now (all run directories are gone, or somebody who is stopped holds their
        lock) is a leftover, which the next look at them removes. The end of a guest must not fail by that.
        """
        if self._lock is None:
            return
        with contextlib.suppress(OSError, UsageError), base_locked(self.path.parent):
            _erase(self.path)
        os.close(self._lock)
        self._lock = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name


def _check_length(path: Path) -> None:
    check_socket_path(path / DOORBELL, "set XDG_RUNTIME_DIR to a shorter directory or use a shorter --name")


def _taken(path: Path, name: str) -> str:
    if _owned(path):
        pid = _owner(path)
        return f"process {pid if pid is not None else '?'}; use another name, or end that guest first"
    return f"a guest without owner: take it over by `qemu-sdei attach {name}`, or end it by `qemu-sdei stop {name}`"


def _claim(path: Path) -> int | None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UsageError(f"{path} is in the way and is not a run directory; remove it")
    if path.is_dir() and not _remove_dead(path):
        return None
    try:
        path.mkdir(mode=0o700)
        lock = try_lock(path / LOCK)
        assert lock is not None  # nobody else can have seen the new directory: the base is locked
        os.write(lock, f"{os.getpid()}\n".encode())
        guest_identity.write(path)
    except BaseException:  # a signal's exception too
        shutil.rmtree(path, ignore_errors=True)
        raise
    return lock


def remove_if_dead(path: Path, patience: float = 2.0) -> bool:
    """Remove run directory `path` unless a living owner or QEMU holds it; True when it is gone.

    For a backend whose owner vanished: the name may already belong to a new guest, which this leaves alone.
    `patience`: seconds to try; the kernel closes the files of a dying process one after another, the lock perhaps last.
    """
    deadline = time.monotonic() + patience
    try:
        while True:
            with base_locked(path.parent):
                if _remove_dead(path):
                    return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
    except FileNotFoundError:
        return True


def running() -> list[Running]:
    """The guests of this user that run, by name; what dead owners left is removed on the way. Raises `UsageError`."""
    base = base_path()
    found: list[Running] = []
    if base.exists():
        make_base()  # for its checks: nobody else's guests are told of, or removed
    try:
        with base_locked(base):
            for path in sorted(base.iterdir()):
                if path.name.startswith(_GOING) and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)  # whoever was at it was killed
                if NAME_PATTERN.fullmatch(path.name) is None or path.is_symlink() or not path.is_dir():
                    continue
                if not _remove_dead(path):
                    owned = _owned(path)
                    if not owned and not (path / RUN).exists():
                        continue  # no guest is there, or not any more
                    found.append(
                        Running(path.name, path, _owner(path) if owned else None, owned, guest_identity.read(path))
                    )
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"run directory {base} cannot be used ({error.strerror}); set XDG_RUNTIME_DIR") from None
    return found


def find(name: str | None) -> Running:
    """The running guest `name`, or the directory that `name` is a path of (`qemu-args --dir`); None: the only guest
    that runs. Raises `UsageError`.
    """
    guests = running()
    if name is None:
        if len(guests) == 1:
            return guests[0]
        names = ", ".join(guest.name for guest in guests)
        raise UsageError(f"which guest? There run {names}: name one" if guests else "no guest is running")
    for guest in guests:
        if guest.name == name:
            return guest
    path = Path(name)
    if (path / CONFIG).is_file():
        return Running(path.name, path.absolute(), _owner(path), identity=guest_identity.read(path))
    if "/" in name:
        raise UsageError(f"{name} holds no {CONFIG}: give the directory that `qemu-sdei qemu-args --dir` wrote")
    check_name(name)
    names = ", ".join(guest.name for guest in guests)
    raise UsageError(f"no guest named {name!r} is running; " + (f"running: {names}" if names else "none is running"))
