"""QEMU's versioned machine types, such as `virt-7.2`: a guest keeps its own in every QEMU that it goes on in.

`virt` means another machine in each QEMU, and QEMU takes no guest of another machine. A newer QEMU has the older ones.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.host.environment import find_qemu

if TYPE_CHECKING:
    from qemu_sdei.vm.plan import Plan
    from qemu_sdei.vm.qmp import Machine

_KIND: Final = re.compile(r"virt-\d{1,3}\.\d{1,3}")
_HEADER: Final = struct.Struct(">4sIBI")
"""QEMU's migration stream begins so (migration/savevm.c): magic, version, section type, and the bytes of a name."""
_MAGIC: Final = b"QEVM"
_STREAM_VERSION: Final = 3
_CONFIGURATION: Final = 7
_MAX_NAME: Final = 64


def is_type(text: object) -> bool:
    """Whether it is a versioned type of the machine that we use."""
    return isinstance(text, str) and _KIND.fullmatch(text) is not None


async def running(machine: Machine) -> str:
    """The type of the machine that runs in `machine`. Raises `GuestError`."""
    kind = await machine.execute("qom-get", {"path": "/machine", "property": "type"})
    if not isinstance(kind, str):
        raise GuestError("QEMU does not say which machine it is")
    return kind.removesuffix("-machine")


def of_stream(file: Path) -> str | None:
    """The type of the machine whose migration stream is in `file`; None: it is not said. Raises `UsageError`."""
    try:
        with file.open("rb") as stream:
            head = stream.read(_HEADER.size + _MAX_NAME)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    if len(head) < _HEADER.size:
        return None
    magic, version, section, length = _HEADER.unpack_from(head)
    if (magic, version, section) != (_MAGIC, _STREAM_VERSION, _CONFIGURATION) or length > _MAX_NAME:
        return None
    kind = head[_HEADER.size : _HEADER.size + length].decode("ascii", "replace")
    return kind if is_type(kind) else None


def check(kind: str, qemu: Path, version: str = "") -> None:
    """Raise `UsageError` unless `qemu` has the machine `kind` (of QEMU `version`, where that is known)."""
    found = find_qemu(qemu)
    if kind not in found.machines:
        raise UsageError(
            f"the guest's machine is {kind}{f' of QEMU {version}' if version else ''}, which {qemu} "
            f"(QEMU {'.'.join(map(str, found.version))}) has not: use the same QEMU or a newer one here"
        )


def pinned(plan: Plan, kind: str | None) -> Plan:
    """`plan` for a guest that arrives and whose machine is `kind` (None: not known). Raises `UsageError`: its QEMU has
    no such machine.
    """
    if kind is None or not is_type(kind):
        return plan
    check(kind, plan.qemu)
    words = ("-machine", kind)
    arguments = plan.devices.arguments
    if arguments[:2] == words:
        return plan
    # Before the user's own words, which may name a machine too.
    return replace(plan, devices=replace(plan.devices, arguments=(*words, *arguments)))
