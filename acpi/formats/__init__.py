"""Tables as the files that people take away: C arrays, hexadecimal text, acpidump text, EDK2 sources, initrd overrides.

Each module takes tables as bytes, each starting with its header, and gives text or files by name; nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from qemu_sdei.acpi.errors import AcpiError


def file_names(tables: Sequence[bytes]) -> list[str]:
    """A name for each table, without suffix: its signature in lower case, numbered where there are several of one.

    These are acpixtract's names: `facp`, `ssdt1`, `ssdt2`.

    Raises:
        AcpiError: a signature cannot be part of a file's name.
    """
    signatures = [signature(table).lower() for table in tables]
    count = Counter(signatures)
    seen: Counter[str] = Counter()
    names = []
    for name in signatures:
        seen[name] += 1
        names.append(f"{name}{seen[name]}" if count[name] > 1 else name)
    return names


def signature(table: bytes) -> str:
    """The table's signature, such as "SDEI"; "RSDP" for the root pointer.

    Raises:
        AcpiError: the bytes do not start with one.
    """
    if table[:8] == b"RSD PTR ":
        return "RSDP"
    text = bytes(table[:4])
    # "ASF!" is the only one with something else in it.
    if len(text) != 4 or not (text.isalnum() or text == b"ASF!"):
        raise AcpiError(f"{text!r} is not a table's signature")
    return text.decode("ascii").replace("!", "_")
