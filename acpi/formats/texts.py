"""Tables in text as people send it: what surrounds the text is taken off, and said, before a form's reader gets it.

Here are the forms that have no offsets too: digits alone, arrays of C and its like, base64. (`rows.py` has those with.)
What these come to is bounded by a small multiple of the text, whatever the text is.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import zlib
from typing import Final

from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.formats.acpidump import Entry
from qemu_sdei.acpi.formats.rows import Shown, likely, lines, sound
from qemu_sdei.acpi.kinds import like_a_signature

_GZIP: Final = b"\x1f\x8b"
_MAX_UNPACKED: Final = 64 << 20
_MAX_RATIO: Final = 64
"""Bytes of text for each byte of gzip; dumps of tables have some 10."""
_SMALL: Final = 1 << 20
_LEAST: Final = 36
"""Bytes of the smallest table."""
_PREFIX: Final = re.compile(r"((?:[ \t]?>)*)[ \t]?(?:<\d+>)?(\[ *\d+\.\d+\] ?)?")
"""What mail and kernel logs put in front of a line: `> `, `[    1.000001] `."""
_MARKED: Final = re.compile(rb"^[ \t]?[>\[<]", re.M)
_LISTS: Final = re.compile(r"\{([^{}]*)\}|\[([^\[\]]*)\]")
"""Arrays of C and Rust in braces, lists of Python in brackets."""
_NUMBERS: Final = re.compile(r"\s*(?:(?:0[xX][0-9a-fA-F]{1,2}|[0-9]{1,3})[uU]?\s*(?:,\s*|\Z))+")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,2}|[0-9]{1,3}")
_HEX_MARKS: Final = re.compile(r"0[xX]|\\+x|(?<=[0-9a-fA-F])h\b")
_DIGITS: Final = re.compile(r"[0-9a-fA-F]+")
_SEPARATORS: Final = str.maketrans("", "", " \t\r\f\v,:;-_\"'")
_LONGEST: Final = 1 << 20
"""Characters of one line of digits."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}")
_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.S)
"""One without an end takes the rest: looked for from each begin, that would take the square of the text's size."""


def unpacked(data: bytes) -> bytes:
    """`data`, or what is in it if it is gzip.

    Raises:
        AcpiError: it is damaged, or unpacks to more than anybody sends.
    """
    if not data.startswith(_GZIP):
        return data
    most = min(_MAX_UNPACKED, max(_SMALL, _MAX_RATIO * len(data)))
    stream = zlib.decompressobj(wbits=31)
    try:
        out = stream.decompress(data, most + 1)
    except zlib.error:
        raise AcpiError("damaged gzip") from None
    if len(out) > most:
        raise AcpiError(f"gzip that unpacks to more than {most} bytes")
    if not stream.eof:
        raise AcpiError("gzip that is cut short")
    return out


def is_utf16(data: bytes) -> bool:
    """Whether `data` begins as UTF-16 text does."""
    return data[:2] in (b"\xff\xfe", b"\xfe\xff")


def plain(data: bytes) -> tuple[bytes, list[str]]:
    """A text without what surrounds its lines (UTF-16, hard spaces, marks of quotation, times of a log), and what of
    these there was, for people.
    """
    notes: list[str] = []
    if is_utf16(data):
        data = data.decode("utf-16", "replace").encode()
        notes.append("UTF-16 text")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\xc2\xa0" in data:
        data = data.replace(b"\xc2\xa0", b" ")
        notes.append("hard spaces")
    if _MARKED.search(data) is None:
        return data, notes
    out = bytearray()
    quoted = timed = 0
    # Line by line: a list of all would have many times the bytes of a text of short ones.
    for line in io.TextIOWrapper(io.BytesIO(data), "latin-1", newline=""):
        match = _PREFIX.match(line)
        start = match.end() if match is not None and match[0].strip() else 0
        if start and match is not None:
            quoted += match[1] != ""
            timed += match[2] is not None
        out += line[start:].encode("latin-1")
    notes += [f"quoted mail, {lines(quoted)}"] if quoted else []
    notes += [f"times of a log, {lines(timed)}"] if timed else []
    return bytes(out), notes


def without_offsets(text: bytes) -> Shown:
    """The tables of a text that shows bytes without offsets; no entries if it shows none."""
    words = text.decode("latin-1")
    for form in (_digits, _arrays, _base64):
        shown = form(words)
        if shown.entries or shown.faults:
            return shown
    return Shown()


def _begins(data: bytes) -> bool:
    return like_a_signature(data[:4]) or data[:8] == b"RSD PTR "


def _digits(text: str) -> Shown:
    """Lines of digits and nothing else, with whatever separates bytes: the first is one that a table begins with."""
    shown = Shown()
    if not likely(text):
        return shown
    digits: list[str] = []
    count = begun = 0

    def close() -> None:
        found = "".join(digits)
        if len(found) >= 2 * _LEAST and len(found) % 2 == 0:
            shown.entries.append(Entry(bytes.fromhex(found)))
            shown.notes += [f"hexadecimal digits, {lines(count)}"]
        elif len(found) >= 2 * _LEAST:
            shown.faults.append(
                f"line {begun}: an odd number of hexadecimal digits ({len(found)}), so one is lost: send them again"
            )

    for number, line in enumerate(io.StringIO(text), 1):
        found = line.strip()
        if not found:
            continue
        if found[0].isalnum() or found[0] in "\\\"'":
            plain_digits = _HEX_MARKS.sub("", found[:_LONGEST]).translate(_SEPARATORS)
        else:
            plain_digits = ""
        if _DIGITS.fullmatch(plain_digits) is None:
            close()
            digits, count = [], 0
            continue
        if not digits and not _begins(bytes.fromhex(plain_digits[: len(plain_digits) & ~1])):
            continue
        if not digits:
            begun = number
        digits.append(plain_digits)
        count += 1
    close()
    return shown


def _arrays(text: str) -> Shown:
    """Arrays of bytes in C, Rust or Python."""
    shown = Shown()
    for block in _LISTS.finditer(_COMMENT.sub("", text)):
        inside = block[1] if block[1] is not None else block[2]
        if len(inside) < 2 * _LEAST or _NUMBERS.fullmatch(inside) is None:
            continue
        numbers = [int(each, 16 if each[:2] in ("0x", "0X") else 10) for each in _NUMBER.findall(inside)]
        if max(numbers) < 256 and len(numbers) >= _LEAST and _begins(found := bytes(numbers)):
            shown.entries.append(Entry(found))
    if shown.entries:
        shown.notes.append(f"source code, {len(shown.entries)} array{'' if len(shown.entries) == 1 else 's'}")
    return shown


def _base64(text: str) -> Shown:
    """An attachment of a mail. Any word is base64, so only what comes to sound tables is taken."""
    shown = Shown()
    words: list[str] = []

    def close() -> None:
        try:
            data = unpacked(base64.b64decode("".join(words), validate=True))
        except (AcpiError, binascii.Error):
            return
        if sound(data):
            shown.entries.append(Entry(data))
            shown.notes.append(f"base64, {lines(len(words))}")

    for line in io.StringIO(text):
        found = line.strip()
        if _BASE64.fullmatch(found):
            words.append(found)
        elif words and not (len(found) % 4 == 0 and re.fullmatch(r"[A-Za-z0-9+/]{2,}={0,2}", found)):
            close()
            words = []
        elif words:
            words.append(found)
    if words:
        close()
    return shown
