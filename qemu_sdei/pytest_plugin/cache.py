"""Guests that were booted once: saved when they had a shell, in the user's cache, to go on from in later tests.

A directory is named by all that made the guest: versions, QEMU, kernel, options. Whoever makes one locks its name,
makes it beside, and moves it into place. What has not been used for longest goes when they take too much room.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from qemu_sdei import __version__, blobs, paths
from qemu_sdei.vm.options import GuestOptions

DEFAULT_LIMIT: Final = 4 << 30
"""Bytes."""
_FOLDER: Final = "pytest-guests"
_VERSION: Final = "2"
_MAKING: Final = 600.0
"""Seconds that another process may take to make a guest: a boot on a busy host."""
_LOOK: Final = 0.05


def key_of(options: GuestOptions, files: list[Path], qemu: str) -> str:
    """The name of the guest that these options make, of these files (kernel, initramfs, ...) and this QEMU (path and
    version).

    Raises `OSError`: a file cannot be read.
    """
    digest = hashlib.sha256()
    words = {name: str(value) for name, value in sorted(asdict(options).items()) if name not in ("name", "firmware")}
    for part in (_VERSION, __version__, blobs.digest(), qemu, repr(words)):
        digest.update(part.encode() + b"\0")
    for file in files:
        found = file.stat()
        digest.update(f"{file.resolve()} {found.st_size} {found.st_mtime_ns} {found.st_ino}\0".encode())
    return digest.hexdigest()[:32]


class GuestCache:
    """Saved guests by key."""

    def __init__(self, limit: int = DEFAULT_LIMIT, directory: Path | None = None) -> None:
        """`limit`: bytes that they may take together.

        Raises:
            OSError: there can be no such directory.
        """
        self.directory = (directory or paths.cache_directory()) / _FOLDER
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._limit = limit

    def path(self, key: str) -> Path:
        """Where the guest `key` is, if it is there."""
        return self.directory / key

    def find(self, key: str) -> Path | None:
        """The directory of a guest; it counts as used now."""
        path = self.path(key)
        if not path.is_dir():
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    @contextmanager
    def making(self, key: str) -> Iterator[Path]:
        """Be the only one who makes the guest `key`: the directory to save it to, which must not be there yet. It is
        moved into place if all went well.

        Raises `OSError`.
        """
        with self.locked(key):
            for stale in self.directory.glob(f".{key}.*"):  # whoever was at it was killed
                if stale.is_dir():
                    shutil.rmtree(stale, ignore_errors=True)
            beside = self.directory / f".{key}.{os.getpid()}"
            try:
                yield beside
                if beside.is_dir():
                    shutil.rmtree(self.path(key), ignore_errors=True)
                    beside.rename(self.path(key))
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        self.tidy(but=key)

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Alone with the guest `key`, also among processes. Raises `TimeoutError`: another one is at it too long."""
        with (self.directory / f".{key}.lock").open("w") as lock:
            deadline = time.monotonic() + _MAKING
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"another process has been making {key} for {_MAKING:g} s") from None
                time.sleep(_LOOK)
            yield

    def forget(self, key: str) -> None:
        """Remove a guest, because it is damaged."""
        shutil.rmtree(self.path(key), ignore_errors=True)

    def tidy(self, but: str = "") -> None:
        """Remove those that were not used for longest, until the rest is within the limit; never `but`."""
        found = []
        for path in self.directory.iterdir():
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.name.startswith("."):
                    size = sum(file.stat().st_blocks * 512 for file in path.iterdir())
                    found.append((path.stat().st_mtime, size, path))
        left = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if left <= self._limit:
                return
            if path.name != but:
                shutil.rmtree(path, ignore_errors=True)
                left -= size
