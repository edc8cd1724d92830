"""`qemu-sdei tables check`: all faults of tables from anywhere, ours and other people's opinion."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.files import read_file
from qemu_sdei.cli.output import Progress, add_verbosity, print_json, print_table, say
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from acpi.formats.acpidump import Entry

FILES: Final = "a table in binary, several one after another, or acpidump's text; - is standard input"


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the result."""

    file: str
    table: str
    """Signature; "" if it is about the whole file."""
    severity: str
    """error, warning or note."""
    message: str
    offset: int | None = None
    """From the start of the table."""
    field: str = ""
    by: str = "qemu-sdei"
    """Whose opinion it is."""


def register(commands: Any) -> None:
    """Add the command below `tables`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="list all faults of tables",
        description="Check tables by the rules of ACPI 6.5 (or of the revision that they have) and list all faults. "
        "Exit code 0 if there is no error, 1 if there is one.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help=FILES)
    parser.add_argument("--iasl", action="store_true", help="ask iasl too: disassemble, compile again and compare")
    parser.add_argument("--fwts", action="store_true", help="ask fwts too (the set should have RSDP, XSDT, FADT, DSDT)")
    add_verbosity(parser, json_output=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from acpi.iasl import Iasl
    from acpi.parse import entries_of
    from acpi.tool import ToolError

    if args.files.count("-") > 1:
        raise UsageError("standard input can be read once")
    try:
        iasl = Iasl() if args.iasl else None
        found: list[Fault] = []
        tables: list[tuple[str, Entry]] = []
        with Progress(args.quiet or not (args.iasl or args.fwts)) as progress:
            for path in args.files:
                entries, error = entries_of(read_file(path, "table file"))
                if error is not None:
                    message = f"from here on there is no table: {error.message}"
                    found.append(Fault(path, "", "error", message, error.offset))
                found += (fault for entry in entries for fault in _ours(path, entry))
                tables += ((path, entry) for entry in entries)
                if iasl is not None:
                    progress(f"asking iasl about {path}")
                    found += (fault for entry in entries for fault in _iasl(path, entry, iasl))
                if args.fwts:
                    progress(f"asking fwts about {path}")
                    found += _fwts(path, entries)
    except ToolError as error:
        raise UsageError(str(error)) from None
    good = not any(fault.severity == "error" for fault in found)
    if args.json:
        print_json(_document(good, tables, found))
    else:
        _print(tables, found, len(args.files) > 1, args)
    return 0 if good else 1


def _ours(path: str, entry: Entry) -> Iterator[Fault]:
    from acpi.verify import verify

    name = name_of(entry.data)
    for finding in verify(entry.data):
        yield Fault(path, name, finding.severity.value, finding.message, finding.offset, finding.field)


def _iasl(path: str, entry: Entry, iasl: Any) -> Iterator[Fault]:
    """What iasl says of a table, and whether what it makes of its own source is the same table."""
    from acpi.iasl import Severity, ToolError, differences

    name = name_of(entry.data)
    if name in ("RSDP", "FACS"):
        return  # iasl takes tables with the common header only
    if int.from_bytes(entry.data[4:8], "little") != len(entry.data):
        yield Fault(path, name, "note", "not asked, as the length is wrong", by="iasl")
        return
    try:
        source = iasl.disassemble(entry.data)
        for complaint in source.complaints:
            yield Fault(path, name, "warning", complaint, by="iasl")
        if not source.known:
            yield Fault(path, name, "note", f"version {iasl.version()} does not know this table", by="iasl")
            return
        if name in ("DSDT", "SSDT"):
            return  # AML goes through an optimizer: only data tables come out the same
        result = iasl.compile(source.text)
    except ToolError as error:
        yield Fault(path, name, "error", str(error), by="iasl")
        return
    for message in result.messages:
        severity = "error" if message.severity is Severity.ERROR else "warning"
        yield Fault(path, name, severity, f"its own source: {message}", by="iasl")
    if result.data is not None and (different := differences(entry.data, result.data)):
        yield Fault(path, name, "warning", "compiled again it is another table", different[0].offset, by="iasl")


def _fwts(path: str, entries: Sequence[Entry]) -> list[Fault]:
    from acpi.fwts import Fwts, Outcome

    severities = {Outcome.FAILED: "error", Outcome.ABORTED: "error", Outcome.WARNING: "warning"}
    results = Fwts().check(entries) if entries else []
    return [
        Fault(path, "", severities[result.outcome], f"{result.label}: {result.text}".removeprefix(": "), by="fwts")
        for result in results
        if result.outcome in severities
    ]


def name_of(data: bytes) -> str:
    """A table's signature as people write it."""
    text = "RSDP" if data[:8] == b"RSD PTR " else data[:4].decode("ascii", "replace")
    return text if text.isprintable() else "????"


def _document(good: bool, tables: Sequence[tuple[str, Entry]], found: Sequence[Fault]) -> dict[str, Any]:
    return {
        "ok": good,
        "tables": [
            {"file": path, "signature": name_of(entry.data), "length": len(entry.data)} for path, entry in tables
        ],
        "faults": [
            {
                "file": fault.file,
                "table": fault.table or None,
                "severity": fault.severity,
                "offset": fault.offset,
                "field": fault.field or None,
                "message": fault.message,
                "by": fault.by,
            }
            for fault in found
        ],
    }


def _print(
    tables: Sequence[tuple[str, Entry]], found: Sequence[Fault], several: bool, args: argparse.Namespace
) -> None:
    others = args.iasl or args.fwts
    if found:
        columns = [*(["file"] if several else []), "table", "severity", "offset", "field", "finding"]
        print_table(
            "",
            [*columns, *(["by"] if others else [])],
            (
                [
                    *([fault.file] if several else []),
                    fault.table or "(file)",
                    fault.severity,
                    "" if fault.offset is None else f"{fault.offset:#x}",
                    fault.field,
                    fault.message,
                    *([fault.by] if others else []),
                ]
                for fault in found
            ),
        )
    if args.quiet:
        return
    present = Counter(name_of(entry.data) for _, entry in tables)
    names = ", ".join(f"{name} ({number})" if number > 1 else name for name, number in present.items())
    count = {severity: sum(fault.severity == severity for fault in found) for severity in ("error", "warning")}
    counts = ", ".join(f"{number} {word}{'' if number == 1 else 's'}" for word, number in count.items() if number)
    say(f"{counts or 'no faults'} in {len(tables)} table{'' if len(tables) == 1 else 's'}: {names or 'none'}")
