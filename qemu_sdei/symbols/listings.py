"""Addresses as text: System.map and /proc/kallsyms, /proc/modules, the files of /sys/module/NAME/sections.

A listing may come from the guest, or was copied from a console: carriage returns, a cut last line and a few lines of
the kernel's between are no fault. What is mostly something else is refused.
"""

from __future__ import annotations

import re
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.symbols.symbol_table import GLOBAL, LOCAL, MAX_NAME, WEAK, Entry, SymbolTable, is_function

MAX_TEXT: Final = 64 << 20
"""Bytes of a listing. The kallsyms of a kernel with all its modules has 20 MiB."""
_BINDINGS: Final = {b"T": GLOBAL, b"W": WEAK, b"t": LOCAL, b"w": WEAK}
"""Letters of code (nm(1)). All others only say where code ends."""
_LINE: Final = re.compile(
    rb"^([0-9a-f]{8,16}) ([A-Za-z?]) ([!-~\x80-\xff]{1,%d})(?:[ \t]+\[([\w.-]{1,64})\])?[ \t\r]*$" % MAX_NAME, re.M
)
_MODULE: Final = re.compile(r"^([\w.-]{1,64}) (\d+) .*? 0x([0-9a-f]{8,16})(?: \([A-Z+-]+\))?[ \t\r]*$", re.M)
"""`name size refcount users state address (taints)`, Linux kernel/module/procfs.c."""
_SECTION: Final = re.compile(
    r"^(?:/sys/module/|\./)?([\w.-]{1,64})/sections/([\w.]{1,128})[:\s]\s*0x([0-9a-f]{1,16})[ \t\r]*$", re.M
)
"""As `grep . /sys/module/*/sections/.*` prints them."""
_STUB: Final = b"The real System.map is in the"
_TOLERATED: Final = 0.02


def is_symbols(data: bytes) -> bool:
    """Whether `data` begins as a System.map or a kallsyms does, perhaps after a line or two of something else; or as
    what Debian has in place of one.
    """
    return _STUB in data[:200] or any(_LINE.match(line) for line in data[:4096].split(b"\n")[:4])


def is_modules(text: str) -> bool:
    """Whether `text` is a /proc/modules."""
    return _MODULE.match(text) is not None


def is_sections(text: str) -> bool:
    """Whether `text` names addresses of modules' sections."""
    return _SECTION.search(text[:4096]) is not None


def symbols(data: bytes, source: str) -> SymbolTable:
    """The functions of a System.map or a kallsyms. `source` is its name in errors.

    Raises:
        UsageError: it is too large; it has no symbols, or much else; the kernel kept the addresses for itself; it is
            the file that Debian's kernel packages have in place of a System.map.
    """
    if len(data) > MAX_TEXT:
        raise UsageError(f"{source} has more than {MAX_TEXT >> 20} MiB, which no such file has")
    if _STUB in data[:200]:
        raise UsageError(
            f"{source} is a placeholder: Debian has the real one in linux-image-RELEASE-dbg; the kernel itself "
            "(vmlinuz-RELEASE) will do"
        )
    code: list[Entry] = []
    others: list[int] = []
    lines = zeroes = 0
    modules: dict[bytes, str] = {}
    for found in _LINE.finditer(data):
        lines += 1
        number, letter, name, module = found.groups()
        address = int(number, 16)
        if not address:
            zeroes += 1
            continue
        binding = _BINDINGS.get(letter)
        text = name.decode("utf-8", "replace")
        if binding is None or not is_function(text):
            others.append(address)
            continue
        where = None
        if module is not None:
            where = modules.setdefault(module, module.decode("utf-8", "replace"))
        code.append(Entry(address, 0, binding, text, where))
    if not lines:
        raise UsageError(f"{source} has no symbols in it")
    if zeroes > lines // 2:
        raise UsageError(
            f"{source} has zeroes for addresses: the guest's kernel hides them (kernel.kptr_restrict); read it as root"
        )
    strange = data.count(b"\n") - lines
    if strange > max(8, _TOLERATED * lines):
        raise UsageError(f"{source} is damaged: {strange} of its lines are no symbols")
    return SymbolTable(code, others, source=source)


def modules(text: str) -> dict[str, int]:
    """Where each module of a /proc/modules begins, by its name."""
    return {name: int(address, 16) for name, _, address in _MODULE.findall(text[:MAX_TEXT]) if int(address, 16)}


def sections(text: str) -> dict[str, dict[str, int]]:
    """Of each module's sections where they are, by its name and theirs."""
    found: dict[str, dict[str, int]] = {}
    for module, name, address in _SECTION.findall(text[:MAX_TEXT]):
        found.setdefault(module, {})[name] = int(address, 16)
    return found
