"""Whatever form we print tables in, and whatever a mail, a log or a terminal makes of it, the same bytes are read."""

from __future__ import annotations

import base64
import gzip
import shutil
import subprocess
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_sdei.acpi.formats import acpidump, carray, hexdump
from qemu_sdei.acpi.parse import Reading, read
from tests.acpi.samples import HEST, TABLES
from tests.acpi.test_texts import acpiview, canonical, rows, xxd
from tests.examples import examples

ALL: Final = [table.to_bytes() for table in TABLES.values()]
LONG: Final = [data for data in ALL if len(data) >= 36]
"""Those with the common header, or as long as one."""


def gdb(at: int, row: bytes) -> str:
    return f"{0x7BF3_F000 + at:#x}:\t" + "\t".join(f"{byte:#04x}" for byte in row)


def md(at: int, row: bytes) -> str:
    """U-Boot's md.b."""
    return f"{0x7BF3_F000 + at:08x}: {row.hex(' ')}"


def narrow(at: int, row: bytes) -> str:
    return f"{at:04X}:{row.hex(' ').upper()}"


FORMS: Final[dict[str, Callable[[list[bytes]], str]]] = {
    "acpidump": lambda tables: acpidump.write([acpidump.Entry(data) for data in tables]),
    "hex": hexdump.write,
    "c": carray.write,
    "python": lambda tables: "\n".join(str(list(data)) for data in tables),
    **{
        form.__name__: lambda tables, form=form: "\n".join(rows(form, data) for data in tables)  # type: ignore[misc]
        for form in (xxd, canonical, acpiview, gdb, md, narrow)
    },
}


def each_line(front: str) -> Callable[[str], bytes]:
    return lambda text: "".join(f"{front}{line}\n" for line in text.splitlines()).encode()


DISGUISES: Final[dict[str, Callable[[str], bytes]]] = {
    "as it is": str.encode,
    "a mail": each_line("> "),
    "a mail in a mail": each_line("> > "),
    "a kernel log": each_line("[   12.345678] "),
    "PowerShell": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "Windows": lambda text: text.replace("\n", "\r\n").encode(),
    "hard spaces": lambda text: text.replace("  ", " \u00a0").encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "no blanks in front": lambda text: "".join(line.lstrip() + "\n" for line in text.splitlines()).encode(),
    "blanks behind": lambda text: text.replace("\n", "  \n").encode(),
    "words around": lambda text: f"Hello,\n\nthis is the table:\n\n{text}\nRegards\n".encode(),
    "marked as code": lambda text: f"```\n{text}\n```\n".encode(),
}
OF_ROWS: Final[dict[str, Callable[[str], bytes]]] = {
    "syslog": each_line("Nov 30 17:00:01 host kernel: [   12.345678] "),
    "journal": each_line("2026-11-30T17:00:01+00:00 host kernel[123]: "),
    "a console": each_line("(XEN) "),
    "one blank where two were": lambda text: text.replace("  ", " ").encode(),
    "tabs": lambda text: text.replace(" ", "\t").encode(),
}
"""Those that only rows of offset and bytes bear."""
ROWS: Final = ("acpidump", "xxd", "canonical", "acpiview", "gdb", "md", "narrow")


def same(reading: Reading, tables: list[bytes]) -> bool:
    return [entry.data for entry in reading.entries] == tables and reading.faults == []


@settings(max_examples=examples(150))
@given(
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(sorted(DISGUISES)),
    st.lists(st.sampled_from(LONG), min_size=1, max_size=3),
)
def test_each_form_in_each_disguise(form: str, disguise: str, tables: list[bytes]) -> None:
    reading = read(DISGUISES[disguise](FORMS[form](tables)))
    assert same(reading, tables), (reading.faults, reading.notes)


@settings(max_examples=examples(100))
@given(st.sampled_from(ROWS), st.sampled_from(sorted(OF_ROWS)), st.sampled_from(LONG))
def test_rows_with_anything_in_front(form: str, disguise: str, data: bytes) -> None:
    reading = read(OF_ROWS[disguise](FORMS[form]([data])))
    assert same(reading, [data]), (reading.faults, reading.notes)


@pytest.mark.parametrize(
    "command",
    ["hexdump", "od -x", "od -t x1", "od -A d -t x1z", "od -A x -t x4", "xxd -e", "xxd -c 32 -g 1", "xxd -u -c 10"],
)
@pytest.mark.parametrize("name", ["HEST", "AGDI-sdei", "MADT", "RSDP-2"])
def test_words_octal_offsets_and_other_widths(command: str, name: str) -> None:
    data, words = TABLES[name].to_bytes(), command.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"no {words[0]}")
    text = subprocess.run([*words, "-"] if words[0] == "od" else words, input=data, capture_output=True, timeout=30)
    assert same(read(text.stdout), [data])


def test_an_attachment_in_base64() -> None:
    for data in (HEST.to_bytes(), gzip.compress(HEST.to_bytes())):
        mail = b"Content-Transfer-Encoding: base64\n\n" + base64.encodebytes(data) + b"\n--=_next--\n"
        reading = read(mail)
        assert [entry.data for entry in reading.entries] == [HEST.to_bytes()]
        assert any("base64" in note for note in reading.notes)


def test_what_was_tolerated_is_said() -> None:
    dump = FORMS["acpidump"]([HEST.to_bytes()])
    count = len(dump.splitlines())
    for disguise, said in {
        "as it is": [],
        "a mail": [f"quoted mail, {count} lines"],
        "a kernel log": [f"times of a log, {count} lines"],
        "PowerShell": ["UTF-16 text"],
        "gzip": ["gzip"],
    }.items():
        assert read(DISGUISES[disguise](dump)).notes == said
    notes = read(OF_ROWS["a console"](dump)).notes
    assert any(note.startswith("text in front of rows") for note in notes)
    assert read(HEST.to_bytes()).notes == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (hexdump.write([HEST.to_bytes()])[:-2], "an odd number of hexadecimal digits"),
        ("0000000 454f 314d 0030 0000 0001 4f45 494d 2044\n0000010 4154 4c42 4945 2044 0001 0000 414d 4544\n"
         "0000020 0001 0000 0000 0000\n", "order is not clear"),
        ("0000: 4F 45 4D 31 30 00 00 00 01 01 4F 45 4D 49 44 20\n0010: 41 42 43 AB CD something\n"
         "0013: 00 00 00 00 00 00 00 00 00 00 00 00 00\n0020: 01\n", "not clear where the bytes end"),
    ],
    ids=["a digit is lost", "words of unknown order", "text that looks like bytes"],
)  # fmt: skip
def test_what_is_not_clear_is_refused_and_says_what_to_do(text: str, said: str) -> None:
    reading = read(text.encode())
    assert reading.entries == []
    (fault,) = reading.faults
    assert said in fault.message


def test_a_row_that_is_lost_is_said() -> None:
    lines = FORMS["xxd"]([HEST.to_bytes()]).splitlines(keepends=True)
    reading = read("".join(lines[:4] + lines[5:]).encode())
    assert [entry.data for entry in reading.entries] == [HEST.to_bytes()[:64]]
    assert "a row is missing" in reading.faults[0].message


@settings(max_examples=examples(150))
@given(st.binary(max_size=200), st.sampled_from(sorted(FORMS)), st.integers(0, 3000), st.sampled_from(ALL))
def test_any_bytes_in_any_form(noise: bytes, form: str, at: int, data: bytes) -> None:
    """Nothing is raised, each file has a table or a fault, and what comes of it is not larger than what was given."""
    text = FORMS[form]([data]).encode()
    for given_bytes in (noise, text[:at] + noise + text[at:], text[:at], text[at:]):
        reading = read(given_bytes)
        assert reading.entries or reading.faults
        assert sum(len(entry.data) for entry in reading.entries) <= max(len(given_bytes), 64 << 10)
