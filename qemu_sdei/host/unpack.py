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
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from qemu_sdei.errors import UsageError
from qemu_sdei.host.apt import WHAT_ELSE

SUMS: Final = "complete"
"""File in a directory of many unpacked files: says that all are there, and what they are, as sha256sum prints it."""
_TIMEOUT: Final = 300.0
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
    """Write the files of a package whose names match into `target`, by their group 1, until `last` was seen; all of
    them without one.

    A kernel's package begins with what is in /boot: not to unpack its 4000 modules saves seconds. What is written was
    compared with the package's own checksums, because the end of the package, with those of its compression, is then
    not looked at.

    Raises:
        UsageError: the package is damaged, or has not what is wanted.
    """
    import tarfile  # here: most runs find all in the index

    sums = _md5sums(deb)
    found: dict[str, Unpacked] = {}
    process = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    deadline = time.monotonic() + _TIMEOUT
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                match = wanted.fullmatch(member.name)
                if match and member.isfile() and (stream := archive.extractfile(member)):
                    data = stream.read()
                    md5 = sums.get(member.name.removeprefix("./"))
                    if md5 not in (None, hashlib.md5(data, usedforsecurity=False).hexdigest()):
                        raise damaged(deb)
                    write(target / match[1], data, 0o755 if member.mode & 0o100 else 0o644)
                    found[match[1]] = Unpacked(target / match[1], hashlib.sha256(data).hexdigest())
                    if match[1] == last:
                        return found
                if time.monotonic() > deadline:
                    break
            else:
                if last is None:
                    return found
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{deb} is damaged ({error}): delete it and try again") from None
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    raise UsageError(f"{deb} has no {last or 'end'} in it: delete it and try again, or {WHAT_ELSE}")


def _md5sums(deb: Path) -> dict[str, str]:
    """MD5 of each file in a package, by its path; {} where the package does not say (deb-md5sums(5))."""
    try:
        out = subprocess.run(
            ["dpkg-deb", "--info", str(deb), "md5sums"], capture_output=True, text=True, errors="replace",
            timeout=_TIMEOUT, check=True, stdin=subprocess.DEVNULL,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return {}
    return {name: md5 for md5, _, name in (line.partition("  ") for line in out.splitlines())}
