"""`qemu-sdei tables check`, `show` and `diff`: tables from anywhere, read, judged and compared."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli import tables_check, tables_files
from qemu_sdei.cli.output import add_verbosity, print_json, print_table, say
from qemu_sdei.cli.tables_check import name_of
from qemu_sdei.cli.tables_files import TableFile, load
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.acpi.formats.acpidump import Entry
    from qemu_sdei.acpi.layout import FieldValue

_SHOWN_BYTES: Final = 16
_SHOWN_UNREAD: Final = 4096
"""Bytes of a table that cannot be read."""


def register(parser: argparse.ArgumentParser) -> None:
    """Add the commands below `tables`."""
    commands = parser.add_subparsers(
        dest="tables_command", metavar="COMMAND", prog=parser.prog, title="tables from anywhere"
    )
    tables_check.register(commands)
    show: argparse.ArgumentParser = commands.add_parser(
        "show",
        help="print tables field by field",
        description="Print tables field by field. For a table that cannot be read, print its header, its bytes and "
        "the reason. Exit code 1 if there is one, or if a file has something that is not a table, else 0.",
    )
    show.add_argument("files", nargs="+", metavar="FILE", help=tables_files.HELP)
    show.set_defaults(run=_show)
    diff: argparse.ArgumentParser = commands.add_parser(
        "diff",
        help="compare two sets of tables field by field",
        description="Compare two files of tables field by field. Exit code 0 if they are the same, 1 if not.",
    )
    diff.add_argument("first", metavar="A", help=tables_files.HELP)
    diff.add_argument("second", metavar="B", help="tables to compare with A")
    diff.set_defaults(run=_diff)
    for each in (show, diff):
        add_verbosity(each, json_output=True)


def _load(path: str, quiet: bool) -> tuple[list[TableFile], bool]:
    """The tables in a file or directory, and whether nothing else is in it, which is said.

    Raises:
        UsageError: there is no table in it.
    """
    files, clean = load([path]), True
    for file in files:
        messages = tables_files.named(file.faults, file.entries)
        for note in () if quiet else file.notes:
            say(f"qemu-sdei: {file.path}: note: {note}", error=True)
        if not file.entries and not file.directory:
            raise UsageError(f"{path}: {messages[0]}")
        for fault, message in zip(file.faults, messages, strict=True):
            place = "" if fault.offset is None else f" (offset {fault.offset:#x})"
            say(f"qemu-sdei: {file.path}{place}: {message}", error=True)
            clean = False
    return files, clean


def _show(args: argparse.Namespace) -> int:
    loaded = [_load(path, args.quiet) for path in args.files]
    sets = [(file.path, file.entries) for files, _ in loaded for file in files]
    code = show_entries(sets, as_json=args.json)
    return code if all(clean for _, clean in loaded) else 1


def show_entries(sets: Iterable[tuple[str | None, Sequence[Entry]]], *, as_json: bool) -> int:
    """Print tables field by field; each set is what one file has.

    Returns the exit code: 1 if a table could not be read, of which header and bytes are shown.
    """
    from qemu_sdei.acpi.show import fields as fields_of
    from qemu_sdei.acpi.show import why_not

    documents, code = [], 0
    for path, entries in sets:
        for entry in entries:
            fields, reason, name = fields_of(entry.data), why_not(entry.data), name_of(entry.data)
            code = 1 if reason else code
            if as_json:
                documents.append(_document(path, name, entry, fields, reason))
                continue
            place = f" at {entry.address:#x}" if entry.address else ""
            title = f"{name}{place}: {len(entry.data)} bytes" + (f" ({path})" if path else "")
            note = f"cannot be read: {reason} (`qemu-sdei tables check` lists all faults)" if reason else ""
            rows = [row for f in fields for row in (_rows(f) if reason else [_row(f)])]
            print_table(title, ["offset", "size", "field", "value", "meaning"], rows, note=note)
    if as_json:
        print_json({"tables": documents})
    return code


def _row(field: FieldValue) -> tuple[str, int, str, str, str]:
    return f"{field.offset:#05x}", field.size, field.title, _value(field), field.meaning


def _rows(field: FieldValue) -> Iterable[tuple[str, int | str, str, str, str]]:
    """A field of a table that cannot be read: all of its bytes, as far as anybody looks."""
    if not isinstance(field.value, bytes) or field.size <= _SHOWN_BYTES:
        yield _row(field)
        return
    shown = min(field.size, _SHOWN_UNREAD)
    for at in range(0, shown, _SHOWN_BYTES):
        text = field.value[at : min(at + _SHOWN_BYTES, shown)].hex(" ")
        first = at == 0
        yield f"{field.offset + at:#05x}", field.size if first else "", field.title if first else "", text, ""
    if shown < field.size:
        yield f"{field.offset + shown:#05x}", "", "", f"(and {field.size - shown} more bytes)", ""


def _document(path: str | None, name: str, entry: Entry, fields: Sequence[FieldValue], reason: str) -> dict[str, Any]:
    return {
        "file": path,
        "signature": name,
        "address": entry.address or None,
        "length": len(entry.data),
        "unreadable": reason or None,
        "fields": [
            {
                "name": f.name,
                "title": f.title,
                "offset": f.offset,
                "size": f.size,
                "value": f.value.hex() if isinstance(f.value, bytes) else f.value,
                "meaning": f.meaning,
            }
            for f in fields
        ],
    }


def _diff(args: argparse.Namespace) -> int:
    if args.first == args.second == "-":
        raise UsageError("both sides cannot be standard input")
    (first, clean), (second, clean2) = _load(args.first, args.quiet), _load(args.second, args.quiet)
    ours, theirs = ([entry for file in files for entry in file.entries] for files in (first, second))
    rows = list(_differences(ours, theirs))
    if args.json:
        keys = ("table", "offset", "field", "first", "second")
        print_json({"same": not rows, "differences": [dict(zip(keys, row, strict=True)) for row in rows]})
    elif rows:
        print_table("", ["table", "offset", "field", args.first, args.second], rows)
    elif not args.quiet:
        say("no differences" if clean and clean2 else "no differences in the tables", error=True)
    return 1 if rows or clean != clean2 else 0


def _differences(first: Sequence[Entry], second: Sequence[Entry]) -> Iterable[tuple[str, str, str, str, str]]:
    """A row for each field that differs, and for each table that only one side has."""
    from qemu_sdei.acpi.show import compare

    ours, theirs = _numbered(first), _numbered(second)
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in ours or name not in theirs:
            yield name, "", "", "there" if name in ours else "missing", "there" if name in theirs else "missing"
            continue
        for each in compare(ours[name], theirs[name], checksum=True):
            at = each.offset
            old, new = each.old_text or "(not there)", each.new_text or "(not there)"
            if isinstance(each.old, bytes) and isinstance(each.new, bytes) and max(len(each.old), len(each.new)) > 32:
                start = _first_difference(each.old, each.new)
                at, old, new = at + start, _from(each.old, start), _from(each.new, start)
            yield name, f"{at:#x}", each.title, old, new


def _first_difference(a: bytes, b: bytes) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _from(data: bytes, start: int) -> str:
    """Some of a long field's bytes, from the one that differs on."""
    part = data[start : start + _SHOWN_BYTES]
    return f"{part.hex(' ')}{' ...' if start + len(part) < len(data) else ''}" or "(end)"


def _numbered(entries: Sequence[Entry]) -> dict[str, bytes]:
    """Tables by signature; of several with one signature the second is called SSDT#2."""
    found: dict[str, bytes] = {}
    for entry in entries:
        name = base = name_of(entry.data)
        number = 1
        while name in found:
            number += 1
            name = f"{base}#{number}"
        found[name] = entry.data
    return found


def _value(field: FieldValue) -> str:
    """A value as people read it; of long bytes the first."""
    if isinstance(field.value, int):
        return f"{field.value:#x}"
    text = field.value.rstrip(b"\0")
    if field.size <= 8 and text and all(0x20 <= byte < 0x7F for byte in text):
        return f'"{text.decode("ascii")}"'
    return _from(field.value, 0)
