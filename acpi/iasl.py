"""iasl, the ACPI compiler and disassembler of ACPICA (Debian: acpica-tools), with typed results.

Tried with 20200925, 20250404 and 20260408. Five of its habits are dealt with here:

- A table whose signature it does not know (AGDI, to Debian's 20200925) is disassembled to its header and a hex dump in
  a comment. Compiling that gives the header alone, without an error: `Disassembly.known` says so, and `compile` raises.
- The compiler writes its own creator id, creator revision and checksum: `differences` compares from offset 36 on.
- A table whose length field is 0 it prints for ever, so it is not given one whose length field lies.
- What it prints it cannot always compile: a listing that it refuses says nothing of the table (CSRT, some SPCR).
- Its exit status is 255 when it found errors in the source, and also when it could not work at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from qemu_sdei.acpi import tool
from qemu_sdei.acpi.tool import MissingToolError, ToolError

__all__ = ["Compilation", "Difference", "Disassembly", "Iasl", "Message", "MissingToolError", "Severity", "ToolError"]

PACKAGE: Final = "acpica-tools (Debian: apt-get install acpica-tools)"
HEADER_SIZE: Final = 36
"""Bytes of the header that nearly all tables begin with (ACPI 6.5 5.2.6)."""

_VERSION: Final = re.compile(r"version (\d{8})")
_MESSAGE: Final = re.compile(r"(?im)^(?:[^\n(]*\((\d+)\) : )?(error|warning|remark)\s+(\d{4}) - *(.*)$")
_UNKNOWN: Final = re.compile(r"^\*{4} Unknown ACPI table signature \[(.{4})\]", re.M)
_COMPLAINT: Final = re.compile(r"(?m)^((?:Firmware |ACPI )?(?:Warning|Error)\b.*)$")
_BEFORE: Final = re.compile(r"(?m)^#ifdef (IASL_BEFORE_(\d{8}))$")
_DATE: Final = re.compile(r"(?m)^( \* Disassembly of [^,\n]*),.*$")


class Severity(Enum):
    """How bad a message of the compiler is."""

    ERROR = "error"
    WARNING = "warning"
    REMARK = "remark"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the compiler."""

    severity: Severity
    code: int
    """As iasl numbers it, such as 6313; the first digit is its class."""
    line: int | None
    """In the source, from 1; None if the message is about no line."""
    text: str

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}: "
        return f"{where}{self.severity.value} {self.code}: {self.text}"


@dataclass(frozen=True, slots=True)
class Disassembly:
    """A table as source text."""

    text: str
    known: bool
    """False: iasl does not know this signature. `text` has the header only, and compiles to the header only."""
    complaints: tuple[str, ...]
    """What iasl remarked about the table, such as a wrong checksum."""


@dataclass(frozen=True, slots=True)
class Compilation:
    """What came of compiling a source."""

    data: bytes | None
    """The table; None if there were errors."""
    messages: tuple[Message, ...]

    def of(self, severity: Severity) -> tuple[Message, ...]:
        """The messages of one severity."""
        return tuple(message for message in self.messages if message.severity is severity)


@dataclass(frozen=True, slots=True)
class Difference:
    """A byte that differs between two tables; None where one of them has ended."""

    offset: int
    first: int | None
    second: int | None


class Iasl:
    """One iasl program.

    Args:
        path: the program; None: the one on PATH.
        timeout: seconds that each run may take.

    Raises:
        MissingToolError: it is not there.
    """

    def __init__(self, path: str | Path | None = None, *, timeout: float = 30.0) -> None:
        self._program = tool.find("iasl", PACKAGE, path)
        self._timeout = timeout

    def _run(self, cwd: Path, *words: str) -> tool.Output:
        return tool.run(self._program, words, cwd=cwd, timeout=self._timeout)

    def version(self) -> int:
        """The release as ACPICA numbers it: a date such as 20200925.

        Raises:
            ToolError: the program is no iasl.
        """
        with tool.workplace("iasl") as directory:
            match = _VERSION.search(self._run(directory, "-v").text)
        if match is None:
            raise ToolError(f"{self._program} does not say which version of iasl it is")
        return int(match[1])

    def disassemble(self, table: bytes) -> Disassembly:
        """The source of `table`, which starts with its header. The same bytes give the same text.

        Raises:
            ToolError: iasl takes it for no table at all, or ended badly; or the table is not as long as it says.
        """
        named = int.from_bytes(table[4:8], "little")
        if len(table) < HEADER_SIZE or named != len(table):
            raise ToolError(f"iasl is not given a table of {len(table)} bytes whose length field says {named}")
        with tool.workplace("iasl") as directory:
            # The text names the file, so the file is called what the table is.
            name = _name(table)
            tool.write_input(directory / f"{name}.aml", table)
            output = self._run(directory, "-vs", "-d", f"{name}.aml")
            result = tool.read_result(directory / f"{name}.dsl")
        if result is None:
            raise ToolError(f"iasl does not disassemble this: {_last_line(output.text)}")
        text = result.decode("utf-8", "replace")
        return Disassembly(
            text=_DATE.sub(r"\1", text),
            known=_UNKNOWN.search(text) is None,
            complaints=tuple(match[1].strip() for match in _COMPLAINT.finditer(output.text)),
        )

    def compile(self, source: str) -> Compilation:
        """Compile ASL, or the data-table language that `disassemble` writes.

        Symbols of the form `IASL_BEFORE_20211217` that the source asks for (#ifdef) are defined if this iasl is older.

        Raises:
            ToolError: iasl ended badly, or `source` is the disassembly of a table that iasl does not know, of which
                it would leave out everything behind the header.
        """
        if (match := _UNKNOWN.search(source)) is not None:
            raise ToolError(
                f"this source is iasl's disassembly of a table that it does not know ({match[1]}): "
                "it has the header only; write the fields as UINT8, UINT16, ... lines"
            )
        with tool.workplace("iasl") as directory:
            tool.write_input(directory / "source.dsl", source.encode())
            output = self._run(directory, "-vs", "-vi", *self._defines(source), "-p", "table", "source.dsl")
            data = tool.read_result(directory / "table.aml") if output.status == 0 else None
        messages = tuple(
            Message(Severity(match[2].lower()), int(match[3]), None if match[1] is None else int(match[1]), match[4])
            for match in _MESSAGE.finditer(output.text)
        )
        if data is None and not any(message.severity is Severity.ERROR for message in messages):
            raise ToolError(f"iasl compiled nothing: {_last_line(output.text)}")
        return Compilation(data, messages)

    def _defines(self, source: str) -> list[str]:
        asked = dict(_BEFORE.findall(source))
        version = self.version() if asked else 0
        return [word for name, date in asked.items() if version < int(date) for word in ("-D", name)]


def before(version: int) -> str:
    """The preprocessor's symbol that says that iasl is older than `version`, such as 20211217."""
    return f"IASL_BEFORE_{version}"


def differences(first: bytes, second: bytes, *, start: int = HEADER_SIZE, limit: int = 64) -> list[Difference]:
    """Where two tables differ from offset `start` on: at most `limit` bytes.

    The default leaves out the header, in which a compiler writes its own name, revision and checksum.
    """
    found: list[Difference] = []
    for offset in range(start, max(len(first), len(second))):
        a = first[offset] if offset < len(first) else None
        b = second[offset] if offset < len(second) else None
        if a != b:
            if len(found) == limit:
                break
            found.append(Difference(offset, a, b))
    return found


def _name(table: bytes) -> str:
    signature = table[:4].decode("ascii", "replace")
    return signature.lower() if signature.isalnum() and signature.isascii() else "table"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
