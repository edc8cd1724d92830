"""Whether a QEMU is amid postcopy, asked by whoever finds it without an owner: one line of QMP and back.

A guest that went on elsewhere still needs the QEMU that it came from, until all of its RAM is fetched.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Final

_LINE: Final = 1 << 20
_TIMEOUT: Final = 2.0
_FETCHING: Final = "postcopy-active"
CUT_OFF: Final = frozenset(("postcopy-paused", "postcopy-recover"))
"""What `status` says where the other QEMU went away before that."""


def status(qmp: Path, timeout: float = _TIMEOUT) -> str:
    """What the QEMU that listens at the socket `qmp` says of its migration; "" if it does not say.

    `timeout`: seconds for each step. QEMU answers one client at a time: one that has an owner does not.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(qmp))
            with connection.makefile("rwb", buffering=_LINE) as stream:
                _line(stream)  # the greeting
                _execute(stream, "qmp_capabilities")
                return str(_execute(stream, "query-migrate").get("status", ""))
    except (OSError, ValueError, RecursionError, AttributeError):
        return ""


def fetching(qmp: Path) -> bool:
    """Whether guest RAM is being fetched by, or from, the QEMU that listens at the socket `qmp`."""
    return status(qmp) == _FETCHING


def _execute(stream: Any, command: str) -> dict[str, Any]:
    stream.write(json.dumps({"execute": command}).encode() + b"\n")
    stream.flush()
    while "return" not in (answer := _line(stream)):
        if "error" in answer:
            raise ValueError(answer["error"])
    found = answer["return"]
    if not isinstance(found, dict):
        raise ValueError("QMP: no object was returned")
    return found


def _line(stream: Any) -> dict[str, Any]:
    try:
        message = json.loads(stream.readline(_LINE))
    except RecursionError:
        raise ValueError("QMP: nested too deep") from None
    if not isinstance(message, dict):
        raise ValueError("QMP: no object")
    return message
