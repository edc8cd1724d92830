"""`qemu-sdei tables check`, `show` and `diff`: tables from anywhere, read, judged and compared."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli import tables_check
from qemu_sdei.cli.files import read_file
from qemu_sdei.cli.output import add_verbosity, print_json, print_table, say
from qemu_sdei.cli.tables_check import name_of
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from acpi.formats.acpidump import Entry
    from acpi.layout import FieldValue

_SHOWN_BYTES: Final = 16


def register(parser: argparse.ArgumentParser) -> None:
    """Add the commands below `tables`."""
    commands = parser.add_subparsers(
        dest="tables_command", metavar="COMMAND", prog=parser.prog, title="tables from anywhere"
    )
    tables_check.register(commands)
    show: argparse.ArgumentParser = commands.add_parser(
        "show", help="print tables field by field", description="Print tables field by field."
    )
    show.add_argument("files", nargs="+", metavar="FILE", help=tables_check.FILES)
    show.set_defaults(run=_show)
    diff: argparse.ArgumentParser = commands.add_parser(
        "diff",
        help="compare two sets of tables field by field",
        description="Compare two files of tables field by field. Exit code 0 if they are the same, 1 if not.",
    )
    diff.add_argument("first", metavar="A", help=tables_check.FILES)
    diff.add_argument("second", metavar="B", help="what to compare it with")
    diff.set_defaults(run=_diff)
    for each in (show, diff):
        add_verbosity(each, json_output=True)


def load(path: str) -> list[Entry]:
    """The tables in a file, whole or not. Raises `UsageError`: there is something else in it."""
    from acpi.parse import entries_of

    entries, error = entries_of(read_file(path, "table file"))
    if error is not None:
        raise UsageError(f"{path}: {error}")
    return entries


def _show(args: argparse.Namespace) -> int:
    return show_entries([(path, load(path)) for path in args.files], as_json=args.json)


def show_entries(sets: Iterable[tuple[str | None, Sequence[Entry]]], *, as_json: bool) -> int:
    """Print tables field by field; each set is what one file has. Returns the exit code."""
    from acpi import AcpiError
    from acpi.show import fields as fields_of

    documents = []
    for path, entries in sets:
        for entry in entries:
            try:
                fields = fields_of(entry.data)
            except AcpiError as error:
                raise UsageError(f"{path or 'tables'}: {error} (`qemu-sdei tables check` lists all faults)") from None
            name = name_of(entry.data)
            if as_json:
                documents.append(_document(path, name, entry, fields))
                continue
            place = f" at {entry.address:#x}" if entry.address else ""
            print_table(
                f"{name}{place}: {len(entry.data)} bytes" + (f" ({path})" if path else ""),
                ["offset", "size", "field", "value", "meaning"],
                ([f"{f.offset:#05x}", f.size, f.title, _value(f), f.meaning] for f in fields),
            )
    if as_json:
        print_json({"tables": documents})
    return 0


def _document(path: str | None, name: str, entry: Entry, fields: Sequence[FieldValue]) -> dict[str, Any]:
    return {
        "file": path,
        "signature": name,
        "address": entry.address or None,
        "length": len(entry.data),
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
    from acpi import AcpiError

    if args.first == args.second == "-":
        raise UsageError("both sides cannot be standard input")
    try:
        rows = list(_differences(load(args.first), load(args.second)))
    except AcpiError as error:
        raise UsageError(f"{error} (`qemu-sdei tables check` lists all faults)") from None
    if args.json:
        keys = ("table", "offset", "field", "first", "second")
        print_json({"same": not rows, "differences": [dict(zip(keys, row, strict=True)) for row in rows]})
    elif rows:
        print_table("", ["table", "offset", "field", args.first, args.second], rows)
    elif not args.quiet:
        say("no differences", error=True)
    return 1 if rows else 0


def _differences(first: Sequence[Entry], second: Sequence[Entry]) -> Iterable[tuple[str, str, str, str, str]]:
    """A row for each field that differs, and for each table that only one side has."""
    from acpi.show import compare

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
