"""Rows of a hexadecimal dump, whatever printed them and whatever stands in front: an offset, and bytes from there on.

xxd, hexdump, od, acpidump without its blanks, U-Boot's md, UEFI's shell, Format-Hex and gdb print such rows; logs,
mails and terminals put something in front of them. What belongs to a row is found by the row before it, which says at
which offset it goes on. What cannot be known is not guessed: it ends as a fault that says what to do.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from qemu_sdei.acpi.formats.acpidump import MAX_TABLES, Entry
from qemu_sdei.acpi.kinds import like_a_signature
from qemu_sdei.acpi.table import HEADER_SIZE, MAX_SIZE, checksum

_LONGEST: Final = 1024
"""Characters of a line that are looked at."""
_CANDIDATES: Final = 8
"""Places of a line where its row may begin."""
_COLUMNS: Final = 64
"""Bytes of a row: `xxd -c 64`."""
_MAX_REPEATED: Final = 64 << 10
"""Bytes that a `*` may stand for."""
_LEAST: Final = 20
"""Bytes of the smallest table: an RSDP of ACPI 1.0."""
_ROW: Final = 16
RSDP: Final = b"RSD PTR "
_SIGNATURES: Final = frozenset(
    b"AEST AGDI APIC BERT BGRT CEDT DBG2 DBGP DMAR DSDT ECDT EINJ ERST FACP FACS FPDT GTDT HEST HMAT HPET IORT IVRS "
    b"MCFG MPAM NFIT PCCT PHAT PPTT PSDT RSDT SBST SDEI SLIC SLIT SPCR SPMI SRAT SSDT TCPA TPM2 UEFI VIOT WAET WSMT "
    b"XSDT".split()
)
"""Tables by whose names the order of the bytes in a word is known."""

_LIKELY: Final = re.compile(r"(?:[2-5][0-9a-fA-F](?:[^0-9a-fA-F\n]{0,4}(?:0[xX])?)){4}")
"""The digits of a signature. Looking for them is quicker than looking at each line."""
_TITLE: Final = re.compile(r"(?<![A-Za-z0-9_])([A-Z][A-Z0-9_]{3}|RSD PTR)\s?@\s?(0x[0-9a-fA-F]{1,16})\s*$")
_OFFSET: Final = re.compile(
    r"(?<![0-9A-Za-z_])(?:0[xX])?([0-9a-fA-F]{3,16})(?:[ \t]*:[ \t]*|[ \t]+)(?=(?:0[xX])?[0-9a-fA-F]{2})"
)
_END: Final = re.compile(r"[ \t]*(?:0[xX])?([0-9a-fA-F]{3,16}):?[ \t]*")
_TOKEN: Final = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2}){1,16})(?=[\s,|*-]|$)")
_BETWEEN: Final = re.compile(r"[ \t]*(?:[-,][ \t]*)?")
_BESIDE: Final = " \t|*-:"
"""What stands between the bytes of a row and its text."""
_NO_BLANKS: Final = str.maketrans("", "", " \t")


@dataclass(slots=True)
class _Run:
    """Rows that follow each other."""

    entry: tuple[str, int]
    """Name and address, where a title in front of it says them."""
    line: int
    start: int
    """Offset of the first row, as it stands there."""
    unit: int
    """Bytes of each word; 0: they are of different sizes."""
    data: bytearray = field(default_factory=bytearray)
    rows: int = 0
    prefixed: int = 0
    """Rows with something in front of them."""
    unsure_line: int = 0
    """The first row of which it is not clear where its bytes end; 0: there is none."""
    base: int = 16
    """What the offsets count in."""
    like: _Row | None = None
    """The last row that was read by itself: most others have everything in the same columns."""
    last: bytes = b""
    fault: str = ""
    """Why it ends where it ends."""

    def take(self, row: _Row, line: int) -> None:
        """Add a row."""
        self.data += row.data
        self.last = row.data
        self.like = row
        self.rows += 1
        self.prefixed += row.prefixed
        if not row.sure:
            self.unsure_line = self.unsure_line or line
        if row.unit != self.unit and len(row.data) % max(self.unit, 1) == 0:
            self.unit = 0
        if len(self.data) > MAX_SIZE:
            self.fault = f"line {line}: more bytes than a table has"


@dataclass(frozen=True, slots=True)
class _Row:
    offset: str
    data: bytes
    unit: int
    prefixed: bool
    sure: bool
    columns: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Where in its line the offset begins and ends, and the bytes."""

    def at(self, base: int) -> int:
        """Its offset; -1 if it is none in this base."""
        try:
            return int(self.offset, base)
        except ValueError:
            return -1

    def begins(self) -> bool:
        """Whether a table begins here, or a dump at offset 0."""
        heads = (self.data, _swapped(self.data, self.unit))
        return self.at(16) == 0 or any(like_a_signature(head[:4]) or head[:8] == b"RSD PTR " for head in heads)


def _runs(text: str) -> Iterator[_Run]:
    """The runs of rows in a text that begin as a table does, or at offset 0."""
    run: _Run | None = None
    repeat, budget = False, MAX_SIZE
    title = ("", 0)
    for number, whole_line in enumerate(io.StringIO(text), 1):
        line = whole_line[:_LONGEST].rstrip()
        if line.endswith("*") and (len(line) == 1 or line[-2].isspace()):
            repeat = run is not None
            continue
        if (found := _TITLE.search(line)) is not None:
            title = (found[1], int(found[2], 16))
            continue
        if run is not None and not run.fault:
            if repeat:
                budget -= _repeat(run, line, budget)
                repeat = False
            if _goes_on(run, line, number):
                continue
        first = next((row for row in _rows(line) if row.begins()), None)
        if first is None:
            other = next(_rows(line), None) if run is not None and not run.fault else None
            if run is not None and other is not None and not _whole(run.data):
                run.fault = (
                    f"line {number} goes on at offset {other.offset}, after {len(run.data):#x} bytes: a row is missing"
                )
            continue
        if run is not None:
            yield run
        run = _Run(title, number, first.at(16), first.unit)
        run.take(first, number)
        title = ("", 0)
    if run is not None:
        yield run


def _goes_on(run: _Run, line: str, number: int) -> bool:
    """Whether a row goes on where `run` ends; it is taken then."""
    if run.like is not None and run.base == 16 and run.rows > 1 and (data := _same(run, run.like, line)):
        run.data += data
        run.last = data
        run.rows += 1
        run.prefixed += run.like.prefixed
        if len(run.data) > MAX_SIZE:
            run.fault = f"line {number}: more bytes than a table has"
        return True
    bases = (16, 8, 10) if run.rows == 1 and run.start == 0 else (run.base,)
    for row in _rows(line):
        for base in bases:
            if row.at(base) == run.start + len(run.data):
                run.base = base
                run.take(row, number)
                return True
    return False


def _same(run: _Run, like: _Row, line: str) -> bytes:
    """The bytes of a row that has everything where the row before has it; none if it has not."""
    begin, end, first, last = like.columns
    expected = run.start + len(run.data)
    if not like.sure or len(line) < last or line[begin:end].lower() != f"{expected:0{end - begin}x}":
        return b""
    digits = line[first:last].translate(_NO_BLANKS)
    if len(digits) != 2 * len(like.data) or line[last : last + 1].isalnum():
        return b""
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return b""


def _repeat(run: _Run, line: str, most: int) -> int:
    """Put in the rows that a `*` stands for, at most so many bytes, and return how many these are."""
    row = next(_rows(line), None)
    end = _END.fullmatch(line)
    if row is None and end is not None:
        row = _Row(end[1], b"", 0, False, True)
    gap = -1 if row is None else row.at(run.base) - run.start - len(run.data)
    if not 0 < gap <= min(_MAX_REPEATED, most) or gap % len(run.last):
        return 0
    run.data += run.last * (gap // len(run.last))
    return gap


def _rows(line: str) -> Iterator[_Row]:
    """What rows a line may be, one for each place that looks like an offset and is in none of the rows before."""
    end = 0
    for count, match in enumerate(_OFFSET.finditer(line)):
        if count == _CANDIDATES:
            return
        if match.start() >= end and (found := _bytes(line, match.end())) is not None:
            data, unit, sure, end, bytes_end = found
            columns = (match.start(1), match.end(1), match.end(), bytes_end)
            yield _Row(match[1], data, unit, bool(line[: match.start()].strip()), sure, columns)


def _bytes(line: str, at: int) -> tuple[bytes, int, bool, int, int] | None:
    """The bytes of a row from `at` on, the size of its words (0: they differ), whether that is clear, the end of
    all that look like bytes and of those that are.
    """
    words: list[str] = []
    ends: list[int] = []
    counts: list[int] = []
    count, gap_at = 0, 0
    while count < _COLUMNS and (token := _TOKEN.match(line, at)) is not None:
        if ends and at - ends[-1] > 1:
            gap_at = len(words)
        words.append(token[1])
        count += len(token[1]) // 2
        ends.append(token.end())
        counts.append(count)
        at = token.end()
        if (between := _BETWEEN.match(line, at)) is not None:
            at = between.end()
    if not words:
        return None
    taken, sure = len(words), True
    data = bytes.fromhex("".join(words))
    rest = line[at:].strip(_BESIDE)
    if rest or gap_at or count != _ROW:
        # Text beside the bytes may look like bytes.
        for taken in range(len(words) if rest else len(words) - 1, 0, -1):
            if _is_text(line[ends[taken - 1] :], data[: counts[taken - 1]]):
                break
        else:
            taken = len(words)
            if rest:
                # Most rows have 16 bytes; of a shorter one the gap is in front of the text.
                sure = _ROW in counts
                taken = counts.index(_ROW) + 1 if sure else gap_at or len(words)
    sizes = {len(word) // 2 for word in words[:taken]}
    return data[: counts[taken - 1]], sizes.pop() if len(sizes) == 1 else 0, sure, ends[-1], ends[taken - 1]


def _is_text(rest: str, data: bytes) -> bool:
    """Whether `rest` is what a dump shows of `data` beside it: blanks apart, and an odd byte as whatever it likes."""
    rest = rest.strip(_BESIDE).translate(_NO_BLANKS)
    if not len(data) - 16 <= len(rest) <= len(data):
        return False
    plain = data.translate(None, b" ")
    if len(rest) != len(plain):
        plain = plain.strip(_BESIDE.encode())
    return len(rest) == len(plain) > 0 and all(
        chr(byte) == letter if 0x20 < byte < 0x7F else not (letter.isascii() and letter.isalnum())
        for byte, letter in zip(plain, rest, strict=True)
    )


def _swapped(data: bytes, unit: int) -> bytes:
    """`data` with the bytes of each word turned round."""
    if unit < 2:
        return data
    return b"".join(data[at : at + unit][::-1] for at in range(0, len(data), unit))


def sound(data: bytes) -> bool:
    """Whether a table with a right checksum (a FACS has none) begins here."""
    if data[:8] == RSDP:
        return len(data) >= 20 and not checksum(data[:20])
    size = int.from_bytes(data[4:8], "little")
    if data[:4] == b"FACS":
        return 64 <= size <= len(data)
    return like_a_signature(data[:4]) and HEADER_SIZE <= size <= len(data) and not checksum(data[:size])


def _known(data: bytes) -> bool:
    return data[:4] in _SIGNATURES or data[:8] == RSDP


def _whole(data: bytes | bytearray) -> bool:
    return len(data) >= HEADER_SIZE and int.from_bytes(data[4:8], "little") <= len(data)


@dataclass(slots=True)
class Shown:
    """What a text shows in rows."""

    entries: list[Entry] = field(default_factory=list)
    """Bytes, each from where a table begins on; several may follow each other in one."""
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was taken as it was meant, for people."""


def read(text: str) -> Shown:
    """The tables that a text shows in rows of hexadecimal digits."""
    shown = Shown()
    if not likely(text):
        return shown
    counts: Counter[str] = Counter()
    for run in _runs(text):
        data = bytes(run.data)
        if len(data) < _LEAST:
            continue
        right = sound(data)
        if not right and run.unit > 1:
            turned = _swapped(data, run.unit)
            if sound(turned) or (_known(turned) and not _known(data)):
                size = int.from_bytes(turned[4:8], "little")
                # The last word is filled up.
                data = turned[:size] if len(turned) < size + run.unit else turned
                right = sound(data)
                counts[f"words of {run.unit} bytes, the lower byte first"] += run.rows
            elif like_a_signature(turned[:4]) and not _known(data):
                shown.faults.append(
                    f"line {run.line}: in words of {run.unit} bytes whose order is not clear, as no checksum is right: "
                    "dump single bytes (`xxd`, `hexdump -C`)"
                )
                continue
        if not (like_a_signature(data[:4]) or data[:8] == RSDP):
            continue
        if run.unsure_line and not right:
            shown.faults.append(
                f"line {run.unsure_line}: it is not clear where the bytes end and their text begins: send the file "
                "itself, or a dump without text (`xxd -p`)"
            )
            continue
        if run.unsure_line and data[:8] != RSDP:
            data = data[: int.from_bytes(data[4:8], "little")]
        name, address = run.entry
        shown.entries.append(Entry(data, address, name))
        if run.fault:
            shown.faults.append(run.fault)
        if run.base != 16:
            counts["octal offsets" if run.base == 8 else "decimal offsets"] += run.rows
        if run.prefixed:
            counts["text in front of rows"] += run.prefixed
        if len(shown.entries) + len(shown.faults) > MAX_TABLES:
            break
    shown.notes = [f"{what}, {lines(count)}" for what, count in counts.items()]
    return shown


def likely(text: str) -> bool:
    """Whether there are hexadecimal digits in a text with which a table could begin."""
    return _LIKELY.search(text) is not None


def lines(count: int) -> str:
    """How many lines, in words."""
    return f"{count} line{'' if count == 1 else 's'}"
