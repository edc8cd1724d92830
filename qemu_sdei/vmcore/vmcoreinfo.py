"""VMCOREINFO: what a kernel says of itself for whoever reads its dump.

Documentation/admin-guide/kdump/vmcoreinfo.rst
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.symbols import notes

NAME: Final = "VMCOREINFO"
_NUMBER: Final = re.compile(r"(?:0x)?[0-9a-f]{1,16}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,20}")


class VmcoreInfo:
    """The lines of the note, by their names: `OSRELEASE`, `SYMBOL(prb)`, `NUMBER(VA_BITS)`."""

    def __init__(self, data: bytes) -> None:
        self._values: Mapping[str, str] = notes.vmcoreinfo(data.decode("utf-8", "replace").replace("\0", "\n"))

    def text(self, name: str) -> str | None:
        """A line as it is; None: there is none."""
        return self._values.get(name)

    def symbol(self, name: str) -> int:
        """The address of a symbol. Raises `UsageError`: the kernel does not say."""
        return self._value(f"SYMBOL({name})", hexadecimal=True)

    def offset(self, member: str) -> int:
        """Bytes from the start of a structure to a member of it, such as "prb_desc.state_var". Raises as `symbol`."""
        return self._value(f"OFFSET({member})")

    def size(self, structure: str) -> int:
        """Bytes of a structure. Raises as `symbol`."""
        return self._value(f"SIZE({structure})")

    def number(self, name: str) -> int:
        """A constant of the kernel's; hexadecimal if it says 0x. Raises as `symbol`."""
        return self._value(f"NUMBER({name})")

    def _value(self, name: str, *, hexadecimal: bool = False) -> int:
        text = self._values.get(name)
        if text is None:
            raise UsageError(f"the dump's kernel does not say {name} in its VMCOREINFO")
        if hexadecimal or text.startswith("0x"):
            if _NUMBER.fullmatch(text):
                return int(text, 16)
        elif _DECIMAL.fullmatch(text):
            return int(text)
        raise UsageError(f"the dump's VMCOREINFO is damaged: {name}={text[:40]}")
