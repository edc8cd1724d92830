"""Asks a QEMU without an owner whether its postcopy migration still fetches RAM: one line of QMP and back.

A guest that went on elsewhere still needs the QEMU that it came from, until all of its RAM is fetched.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Final

from qemu_sdei import jsonline
from qemu_sdei.errors import ProtocolError

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
    except (OSError, ProtocolError):
        return ""


def fetching(qmp: Path) -> bool:
    """Whether guest RAM is being fetched by, or from, the QEMU that listens at the socket `qmp`."""
    return status(qmp) == _FETCHING


def _execute(stream: Any, command: str) -> dict[str, Any]:
    stream.write(jsonline.encode({"execute": command}))
    stream.flush()
    while "return" not in (answer := _line(stream)):
        if "error" in answer:
            raise ProtocolError("QMP: the command was refused")
    found = answer["return"]
    if not isinstance(found, dict):
        raise ProtocolError("QMP: no object was returned")
    return found


def _line(stream: Any) -> dict[str, Any]:
    return jsonline.decode(stream.readline(_LINE), "QEMU's answer")
