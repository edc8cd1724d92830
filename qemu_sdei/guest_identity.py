"""Which guest it is: names and paths are used again, and who is connected to a guest knows it by its identity."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final

from qemu_sdei.errors import LostGuestError

FILE: Final = "identity"
"""In the run directory: 32 hexadecimal digits that nobody can guess, the guest's own for as long as it runs, wherever
it moves.
"""
_PATTERN: Final = re.compile(r"[0-9a-f]{32}")


def is_one(value: object) -> bool:
    """Whether this can be a guest's identity."""
    return isinstance(value, str) and _PATTERN.fullmatch(value) is not None


def read(path: Path) -> str:
    """The identity of the guest in run directory `path`; "" where there is none: an older version started it."""
    try:
        with (path / FILE).open() as file:
            text = file.read(64).strip()
    except (OSError, ValueError):
        return ""
    return text if is_one(text) else ""


def write(path: Path, known: str = "") -> None:
    """Have the guest in run directory `path` be the one that is known by `known`, or a new one. Raises `OSError`."""
    part = path / f"{FILE}.part"
    part.write_text(f"{known or secrets.token_hex(16)}\n")
    part.chmod(0o600)
    part.replace(path / FILE)


def another(name: str) -> LostGuestError:
    """The error for who was connected to a guest, and finds the next one of its name."""
    return LostGuestError(f"guest {name!r} has ended; another guest of that name runs now, and nothing was done to it")
