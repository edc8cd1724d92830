"""How guests that ran in the background have ended, for whoever asks afterwards (`wait`, `logs`): the exit status, and
the end of the console. In the directory `.ended` of the base directory; until it is asked for, a new guest has the
name, or there are too many.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qemu_sdei import bounded
from qemu_sdei.config import NAME_PATTERN
from qemu_sdei.errors import UsageError
from qemu_sdei.rundir_base import base_path
from qemu_sdei.untrusted_files import read

FOLDER: Final = ".ended"
KEPT: Final = 32
"""Guests of which it is known."""
CONSOLE: Final = 256 << 10
"""Bytes of a console's end."""
_MOST: Final = 64 << 10


@dataclass(frozen=True)
class Ended:
    """A guest that has ended."""

    name: str
    status: int
    """Exit status, as `run` would have returned it."""
    words: str
    """What is said of it."""


def keep(ended: Ended, console: bytes) -> None:
    """Keep it. Without room on the disk it is not."""
    folder = base_path() / FOLDER
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / f"{ended.name}.log").write_bytes(console[-CONSOLE:])
        part = folder / f"{ended.name}.part"
        part.write_text(json.dumps({"status": ended.status, "words": ended.words}) + "\n")
        part.replace(folder / f"{ended.name}.json")
        for old in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            forget(old.stem)


def find(name: str) -> Ended | None:
    """How guest `name` has ended; None: that is not known."""
    if NAME_PATTERN.fullmatch(name) is None:
        return None
    try:
        found = bounded.loads(read(base_path() / FOLDER / f"{name}.json", _MOST))
    except (UsageError, OSError, ValueError):
        return None
    if not isinstance(found, dict) or type(status := found.get("status")) is not int or not 0 <= status <= 255:
        return None
    return Ended(name, status, str(found.get("words", "")))


def console(name: str) -> Path:
    """The file with the end of its console."""
    return base_path() / FOLDER / f"{name}.log"


def forget(name: str) -> None:
    """Nobody asks any more."""
    folder = base_path() / FOLDER
    with contextlib.suppress(OSError):
        for file in (folder / f"{name}.json", folder / f"{name}.log", folder / f"{name}.part"):
            file.unlink(missing_ok=True)
        folder.rmdir()  # fails while there is another one
