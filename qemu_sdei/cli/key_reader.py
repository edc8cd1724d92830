"""Keys that were typed at a terminal, by name, out of the bytes that it sends."""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "Z": "shift-tab",
    "1~": "home",
    "4~": "end",
    "5~": "page-up",
    "6~": "page-down",
    "7~": "home",
    "8~": "end",
}
_SINGLE: Final = {"\t": "tab", "\r": "enter", "\n": "enter", "\x03": "ctrl-c", "\x1a": "ctrl-z", "\x0c": "ctrl-l"}
_SEQUENCE: Final = re.compile(r"\x1b(?:\[([0-9;?<=>]*)([ -/]*[@-~])|O([ -~]))")
_BEGUN: Final = re.compile(r"\x1b(?:\[[0-9;?<=>]*[ -/]*|O)?\Z")
_LONGEST: Final = 32


class KeyReader:
    """Puts keys together; one may come in several pieces."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """The keys in `data`: names ("up", "tab", "page-down"), or the character itself. Sequences of other keys, of
        the mouse and of a terminal that answers are left out.
        """
        text = self._rest + data.decode(errors="ignore")
        self._rest = ""
        keys = []
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                keys.append(_SINGLE.get(text[at], text[at]))
                at += 1
                continue
            found = _SEQUENCE.match(text, at)
            if found is not None:
                numbers, last, alone = found.groups()
                if name := _NAMED.get(alone) if alone else _NAMED.get(f"{numbers}{last}" if last == "~" else last):
                    keys.append(name)
                at = found.end()
            elif len(text) - at <= _LONGEST and _BEGUN.match(text, at):
                self._rest = text[at:]
                break
            else:
                at += 1  # Escape itself
        return keys
