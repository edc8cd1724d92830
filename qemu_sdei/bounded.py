"""Reads JSON whose writer is not trusted: in memory it takes no more than a small multiple of its text."""

from __future__ import annotations

import json
import re
from typing import Any, Final

MAX_DEPTH: Final = 32
MAX_CONTAINERS: Final = 1 << 17
"""Lists and objects. An empty one is two characters, and takes 64 bytes. For 512 CPUs some 20,000 are needed."""
MAX_PARTS: Final = 1 << 19
"""Commas. For 512 CPUs some 100,000 are needed."""

_TOKEN: Final = re.compile(rb'[\[\]{}]|"(?:[^"\\]|\\.)*+"?', re.DOTALL)


def loads(data: bytes) -> Any:
    """The value that the JSON text `data` is. Its size is the caller's to bound.

    Raises:
        ValueError: it is no JSON; lists and objects are nested deeper than `MAX_DEPTH`, or it has more parts than
            `MAX_CONTAINERS` and `MAX_PARTS`; a number has more digits than Python converts (4300).
    """
    containers = data.count(b"[") + data.count(b"{")
    if containers > MAX_CONTAINERS or (len(data) > MAX_PARTS and data.count(b",") > MAX_PARTS):
        raise ValueError("it has too many parts")
    if containers > MAX_DEPTH:  # fewer cannot be nested too deep: most messages are not looked at twice
        _check_depth(data)
    try:
        return json.loads(data)
    except RecursionError:  # as deep only by what is no JSON
        raise ValueError("it is nested too deep") from None


def _check_depth(data: bytes) -> None:
    depth = 0
    for token in _TOKEN.finditer(data):
        what = token[0]
        if what in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        elif what in (b"]", b"}"):
            depth -= 1
