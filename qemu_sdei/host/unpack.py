"""Files of Debian packages, unpacked into the cache: each as a whole or not at all, and only what the package says.

SHA-256 of what was unpacked is kept, because a kernel with one wrong byte boots, and does anything.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from qemu_sdei.errors import UsageError
from qemu_sdei.host.apt import WHAT_ELSE

SUMS: Final = "complete"
"""File in a directory of many unpacked files: says that all are there, and what they are, as sha256sum prints it."""
IMAGE: Final = r"\./(?:boot/(vmlinuz-[^/]+)|(?:usr/)?lib/modules/[^/]+/(vmlinuz))"
CONFIG: Final = r"\./(?:boot/(config-[^/]+)|(?:usr/)?lib/modules/[^/]+/(config))"
DRIVERS: Final = (
    r"\./(?:usr/)?lib/modules/[^/]+/kernel/"
    r"(?:drivers/(?:virtio|block|net|char)|net/(?:core|9p)|fs|fs/(?:9p|ext4|jbd2|netfs|fscache)|lib|crypto)"
    r"/([^/]+\.ko(?:\.xz|\.gz|\.zst)?)"
)
"""Where Debian's packages have a kernel, its configuration, and the modules that disks, networks and shares can need:
whole directories, because which modules need each other changes from kernel to kernel.
"""
_TIMEOUT: Final = 300.0
_MAX_MEMBER: Final = 256 << 20
"""Bytes of a file of a package that is unpacked; more than any kernel has."""
_MAX_WRITTEN: Final = 1 << 30
_MAX_RATIO: Final = 32
_MIN_LIMIT: Final = 64 << 20
"""A kernel's package becomes 6 times as large; how large it may become, as in `qemu_sdei.compressed`."""
_MAX_SAID: Final = 16 << 20
"""Bytes of what a package says of itself: checksums of 5000 files have 500 KiB."""
_SUM: Final = re.compile(r"([0-9a-f]{64})  ([^/\n]+)")


@dataclass(frozen=True)
class Unpacked:
    """A file that was unpacked."""

    path: Path
    sha256: str


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex digits. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(path: Path, delete: Path | None = None) -> UsageError:
    """What to raise where `path` of the cache is not what was put there; `delete` (default: itself) is what to delete
    for it to be made again.
    """
    what = delete or path
    command = f"rm {'-r ' if what.is_dir() else ''}{shlex.quote(str(what))}"
    return UsageError(f"{path} is damaged, it is not what was put there: delete it (`{command}`) and try again")


def write(path: Path, data: bytes | IO[bytes], mode: int = 0o644) -> None:
    """Put a file in its place at once: nobody ever sees half of it. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(data, bytes):
                file.write(data)
            else:
                while piece := data.read(1 << 20):
                    file.write(piece)
        Path(part).chmod(mode)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def write_sums(folder: Path, files: dict[str, Unpacked]) -> None:
    """Say in `folder` that all of `files` are there. Raises `OSError`."""
    write(folder / SUMS, "".join(f"{file.sha256}  {name}\n" for name, file in sorted(files.items())).encode())


def read_sums(folder: Path) -> dict[str, str]:
    """SHA-256 by file name of what was unpacked into `folder`; {}: an older version of this program did not say."""
    try:
        lines = (folder / SUMS).read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {found[2]: found[1] for line in lines if (found := _SUM.fullmatch(line))}


def extract(deb: Path, wanted: re.Pattern[str], target: Path, last: str | None = None) -> dict[str, Unpacked]:
    """Write the files of a package whose names match into `target`, by the group that matched, until `last` was seen;
    all of them without one. Links are no files.

    A kernel's package begins with what is in /boot: not to unpack its 4000 modules saves seconds. What is written was
    compared with the package's own checksums, because the end of the package, with those of its compression, is then
    not looked at.

    Raises:
        UsageError: the package is damaged, or has not what is wanted.
    """
    import tarfile  # here: most runs find all in the index

    sums = _md5sums(deb)
    found: dict[str, Unpacked] = {}
    process = _dpkg("--fsys-tarfile", str(deb))
    assert process.stdout is not None
    deadline = time.monotonic() + _TIMEOUT
    written = 0
    try:
        stream = _Limited(process.stdout, deb)
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
            for member in archive:
                match = wanted.fullmatch(member.name)
                if match and match.lastindex and member.isfile():
                    name = match[match.lastindex]
                    written += member.size
                    if member.size > _MAX_MEMBER or written > _MAX_WRITTEN:
                        raise UsageError(f"{deb} is damaged: what is in it is larger than any kernel")
                    content = archive.extractfile(member)
                    assert content is not None
                    data = content.read()
                    md5 = sums.get(member.name.removeprefix("./"))
                    if md5 not in (None, hashlib.md5(data, usedforsecurity=False).hexdigest()):
                        raise damaged(deb)
                    write(target / name, data, 0o755 if member.mode & 0o100 else 0o644)
                    found[name] = Unpacked(target / name, hashlib.sha256(data).hexdigest())
                    if name == last:
                        return found
                if time.monotonic() > deadline:
                    break
            else:
                if last is None:
                    stream.rest()
                    if process.wait(_TIMEOUT):
                        raise EOFError("its end is missing")
                    return found
    except (tarfile.TarError, EOFError, ValueError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{deb} is damaged ({error}): delete it and try again") from None
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    raise UsageError(f"{deb} has no {last or 'end'} in it: delete it and try again, or {WHAT_ELSE}")


class _Limited:
    """What dpkg-deb unpacks, as far as a package can become so large."""

    def __init__(self, stream: IO[bytes], deb: Path) -> None:
        self._stream = stream
        self._left = max(_MIN_LIMIT, _MAX_RATIO * deb.stat().st_size)
        self._deb = deb

    def read(self, size: int) -> bytes:
        """The next bytes. Raises `UsageError`: there are too many."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UsageError(f"{self._deb} is damaged: it becomes more than {_MAX_RATIO} times as large")
        return data

    def rest(self) -> None:
        """Read to the end: dpkg-deb then says whether all was right."""
        while self.read(1 << 20):
            pass


def _dpkg(*arguments: str) -> subprocess.Popen[bytes]:
    """dpkg-deb, started. Raises `UsageError`: there is none."""
    try:
        return subprocess.Popen(
            ["dpkg-deb", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError:
        raise UsageError(
            "a Debian package is read by dpkg-deb, which is not here: install dpkg, or unpack the package elsewhere "
            "and give the vmlinuz in it"
        ) from None


def _said(*arguments: str) -> str | None:
    """What dpkg-deb says; None: it fails."""
    process = _dpkg(*arguments)
    timer = threading.Timer(_TIMEOUT, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        out = process.stdout.read(_MAX_SAID)
        whole = len(out) < _MAX_SAID and process.wait() == 0
        return out.decode(errors="replace") if whole else None
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def fields(deb: Path, *names: str) -> dict[str, str]:
    """Fields of a package such as "Version", by name, each in one line. Raises `UsageError`: it is no package."""
    text = _said("--field", str(deb), *names)
    if text is None:
        raise UsageError(f"{deb} is not a Debian package, or is damaged: dpkg-deb cannot read it")
    found = {}
    for line in re.sub(r"\n[ \t]+", " ", text).splitlines():
        name, colon, value = line.partition(":")
        if colon and len(value) < 1 << 16:
            found[name] = value.strip()
    return found


def _md5sums(deb: Path) -> dict[str, str]:
    """MD5 of each file in a package, by its path; {} where the package does not say (deb-md5sums(5))."""
    out = _said("--info", str(deb), "md5sums")
    return {} if out is None else {name: md5 for md5, _, name in (line.partition("  ") for line in out.splitlines())}
