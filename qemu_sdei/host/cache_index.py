"""`index.json` of the cache: which packages and files are there, and the SHA-256 of each."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from qemu_sdei.host.unpack import Unpacked, damaged, sha256, write

_OLD: Final = 2.0
"""Seconds after which a change of a file shows in its times, whatever clock the file system has."""
_sums: Final[dict[tuple[str, int, int, int, int], str]] = {}
"""SHA-256 of files that this process has read, by path, inode, size and times: each guest of a process asks anew."""


class CacheIndex:
    """The index of the cache in `directory`. It is read anew each time: other processes write it too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self) -> dict[str, Any]:
        """What `index.json` says; an empty index if it is not there or damaged: then things are fetched again."""
        try:
            index = json.loads((self._directory / "index.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            index = None
        if not isinstance(index, dict):
            index = {}
        for name in ("kernels", "debs", "digests"):
            if not isinstance(index.get(name), dict):
                index[name] = {}
        return index

    def write(self, index: dict[str, Any], files: Iterable[Unpacked]) -> None:
        """Replace it, with the checksums of `files`, which are new. Raises `OSError`."""
        index["digests"] |= {self.key(file.path): file.sha256 for file in files}
        write(self._directory / "index.json", json.dumps(index, indent=1, sort_keys=True).encode() + b"\n")

    def key(self, path: Path) -> str:
        """How the index names a file of the cache."""
        return str(path.relative_to(self._directory))

    def digest(self, path: Path) -> str | None:
        """SHA-256 of a file when it was put there; None: an older version of this program did not say."""
        known = self.read()["digests"].get(self.key(path))
        return known if isinstance(known, str) else None

    def is_damaged(self, path: Path) -> bool:
        """Whether a file is not what was put there. A file without a checksum is not."""
        known = self.digest(path)
        try:
            return known is not None and _sum(path) != known
        except OSError:
            return True

    def file(self, name: str) -> Path | None:
        """Where a single file such as busybox is to be; it may have been deleted."""
        path = self.read().get(name)
        return self._directory / path if isinstance(path, str) else None

    def deb(self, package: str, version: str) -> Path | None:
        """A package that is here. Raises `UsageError`: it is damaged."""
        name = self.read()["debs"].get(f"{package}={version}")
        path = self._directory / "debs" / str(name)
        if not name or not path.is_file():
            return None
        if self.is_damaged(path):
            raise damaged(path)
        return path

    def deb_of(self, package: str, folder: str) -> Path | None:
        """The package from which the directory `folder`, named by its version, was unpacked. Raises `UsageError`."""
        versions = [key.partition("=")[2] for key in self.read()["debs"] if key.startswith(f"{package}=")]
        return next((self.deb(package, version) for version in versions if safe(version) == folder), None)


def _sum(path: Path) -> str:
    """SHA-256 of a file, read only if it may have changed since this process has. Raises `OSError`."""
    now = path.stat()
    key = (str(path), now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    if (found := _sums.get(key)) is None:
        found = sha256(path)
        if time.time() - now.st_ctime > _OLD:
            _sums[key] = found
    return found


def safe(name: str) -> str:
    """A name for a directory."""
    return re.sub(r"[^\w.+~-]", "_", name)
