"""The options of `guest/crash-kernel.config`: read, named by a digest, and looked for in what came out. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

_SET: Final = re.compile(r"(CONFIG_\w+)=(.+)")
_UNSET: Final = re.compile(r"# (CONFIG_\w+) is not set")
OFF: Final = "n"


def options(text: str) -> dict[str, str]:
    """Value by name of all options that a .config, or a part of one, says something about; "n": it is off."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := _SET.fullmatch(line.strip()):
            found[match[1]] = match[2]
        elif match := _UNSET.fullmatch(line.strip()):
            found[match[1]] = OFF
    return found


def digest(wanted: Mapping[str, str]) -> str:
    """A name of 12 hex digits for a set of options, whatever their order and comments."""
    text = "".join(f"{name}={value}\n" for name, value in sorted(wanted.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def wrong(wanted: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """The options that did not come out as they are wanted, each in words. One that is not there is off."""
    return [
        f"{name} (wanted {value}, got {got.get(name, OFF)})"
        for name, value in wanted.items()
        if got.get(name, OFF) != value
    ]
