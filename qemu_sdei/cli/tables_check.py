"""`qemu-sdei tables check`: all faults of tables from anywhere, ours and other people's opinion."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from qemu_sdei.cli import tables_files
from qemu_sdei.cli.output import Progress, add_verbosity, print_json, print_table, say
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.acpi.formats.acpidump import Entry


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
        description="Check tables by the rules of ACPI 6.5, or of the revision that they have, and list all faults. "
        "Tables that are given together, in several files, one file or a directory, are taken as those "
        "of one machine: contradictions between them are listed too. Exit code 1 if there is an error, "
        "else 0.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help=tables_files.HELP)
    parser.add_argument("--separate", action="store_true", help="check each file alone: they are not of one machine")
    parser.add_argument(
        "--method",
        choices=("smc", "hvc"),
        help="conduit of the machine's firmware; a FADT with another one is an error",
    )
    parser.add_argument(
        "--iasl", action="store_true", help="also check with iasl: disassemble, compile again and compare"
    )
    parser.add_argument("--fwts", action="store_true", help="also check with fwts (needs RSDP, XSDT, FADT and DSDT)")
    add_verbosity(parser, json_output=True)
    parser.set_defaults(run=run)


@dataclass(slots=True)
class _Result:
    files: list[tables_files.TableFile]
    faults: list[Fault] = field(default_factory=list)
    ran: dict[str, list[str]] = field(default_factory=dict)
    """fwts' tests: those that `ran`, and those that this fwts is `missing`."""

    @property
    def tables(self) -> list[tuple[str, Entry]]:
        return [(file.path, entry) for file in self.files for entry in file.entries]

    @property
    def good(self) -> bool:
        return not any(fault.severity == "error" for fault in self.faults)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.acpi.fwts import Fwts
    from qemu_sdei.acpi.iasl import Iasl
    from qemu_sdei.acpi.tool import ToolError

    if args.files.count("-") > 1:
        raise UsageError("standard input can be read once")
    try:
        iasl = Iasl() if args.iasl else None
        fwts = Fwts() if args.fwts else None
        result = _Result(tables_files.load(args.files))
        sets = [each for file in result.files for each in tables_files.sets([file])]
        if not args.separate:
            sets = tables_files.sets(result.files)
        with Progress(args.quiet or not (args.iasl or args.fwts)) as progress:
            for file in result.files:
                result.faults += _alone(file)
                if iasl is not None:
                    progress(f"asking iasl about {file.path}")
                    result.faults += (fault for entry in file.entries for fault in _iasl(file.path, entry, iasl))
            for each in sets:
                result.faults += _together(each, args.method)
                if fwts is not None:
                    progress(f"asking fwts about {each.path or 'all of them'}")
                    _fwts(each, fwts, result)
    except ToolError as error:
        raise UsageError(str(error)) from None
    if args.json:
        print_json(_document(result))
    else:
        _print(result, args)
    return 0 if result.good else 1


def _alone(file: tables_files.TableFile) -> Iterator[Fault]:
    """What is wrong with a file, and with each of its tables."""
    from qemu_sdei.acpi.verify import verify

    for note in file.notes:
        yield Fault(file.path, "", "note", note)
    for fault, message in zip(file.faults, tables_files.named(file.faults, file.entries), strict=True):
        yield Fault(file.path, "", "error", message, fault.offset)
    for entry in file.entries:
        for finding in verify(entry.data):
            message = finding.message
            yield Fault(file.path, name_of(entry.data), finding.severity.value, message, finding.offset, finding.field)


def _together(tables: tables_files.TableSet, method: Literal["smc", "hvc"] | None) -> Iterator[Fault]:
    """What is wrong between the tables of a machine."""
    from qemu_sdei.acpi.verify import verify_set

    for each in verify_set(tables.entries, conduit=method):
        number, finding = each.table, each.finding
        path, name = tables.paths[number], name_of(tables.entries[number].data)
        yield Fault(path, name, finding.severity.value, finding.message, finding.offset, finding.field)


def _iasl(path: str, entry: Entry, iasl: Any) -> Iterator[Fault]:
    """What iasl says of a table, and whether what it makes of its own source is the same table."""
    from qemu_sdei.acpi.iasl import Severity, ToolError, differences
    from qemu_sdei.acpi.parse import own_bytes

    name, data = name_of(entry.data), own_bytes(entry.data)
    if name in ("RSDP", "FACS"):
        return  # iasl takes tables with the common header only
    if int.from_bytes(data[4:8], "little") != len(data):
        yield Fault(path, name, "note", "not asked, as the length is wrong", by="iasl")
        return
    try:
        source = iasl.disassemble(data)
    except ToolError as error:
        yield Fault(path, name, "warning", str(error), by="iasl")
        return
    for complaint in source.complaints:
        yield Fault(path, name, "warning", complaint, by="iasl")
    if not source.known:
        yield Fault(path, name, "note", f"version {iasl.version()} does not know this table", by="iasl")
        return
    if name in ("DSDT", "SSDT"):
        return  # AML goes through an optimizer: only data tables come out the same
    # What iasl says of its own listing is about iasl: some releases cannot compile what they print.
    try:
        result = iasl.compile(source.text)
    except ToolError as error:
        yield Fault(path, name, "note", f"version {iasl.version()} fails on its own listing: {error}", by="iasl")
        return
    if errors := result.of(Severity.ERROR):
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        message = f"version {iasl.version()} does not compile its own listing: {errors[0]}{more}"
        yield Fault(path, name, "note", message, by="iasl")
        return
    for said in result.messages:
        yield Fault(path, name, "note", f"version {iasl.version()} about its own listing: {said}", by="iasl")
    if result.data is not None and (different := differences(data, result.data)):
        message = f"version {iasl.version()} makes another table of its own listing"
        yield Fault(path, name, "note", message, different[0].offset, by="iasl")


def _fwts(tables: tables_files.TableSet, fwts: Any, result: _Result) -> None:
    """What fwts says of a set, and by which of its tests."""
    from qemu_sdei.acpi.fwts import FALSE_ALARMS, TESTS, Outcome

    severities = {Outcome.FAILED: "error", Outcome.ABORTED: "error", Outcome.WARNING: "warning"}
    names = fwts.tests()
    result.ran = {"ran": list(names), "missing": [name for name in TESTS if name not in names]}
    for each in fwts.check(tables.entries, names):
        if each.outcome not in severities:
            continue
        message, severity = f"{each.label}: {each.text}".removeprefix(": "), severities[each.outcome]
        if (reason := next((why for pattern, why in FALSE_ALARMS.items() if pattern in each.text), "")) != "":
            message, severity = f"{message} ({reason})", "note"
        result.faults.append(Fault(tables.path, "", severity, message, by="fwts"))


def name_of(data: bytes) -> str:
    """A table's signature as people write it."""
    text = "RSDP" if data[:8] == b"RSD PTR " else data[:4].decode("ascii", "replace")
    return text if text.isprintable() else "????"


def _document(result: _Result) -> dict[str, Any]:
    return {
        "ok": result.good,
        "tables": [
            {"file": path, "signature": name_of(entry.data), "length": len(entry.data)} for path, entry in result.tables
        ],
        "faults": [
            {
                "file": fault.file or None,
                "table": fault.table or None,
                "severity": fault.severity,
                "offset": fault.offset,
                "field": fault.field or None,
                "message": fault.message,
                "by": fault.by,
            }
            for fault in result.faults
        ],
        **({"fwts": result.ran} if result.ran else {}),
    }


def _print(result: _Result, args: argparse.Namespace) -> None:
    tables, found = result.tables, result.faults
    if not tables:
        for fault in found:
            say(f"{fault.file}: {fault.message}")
        return
    several, others = len(result.files) > 1, args.iasl or args.fwts
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
    count = Counter(fault.severity for fault in found)
    words = [f"{count[word]} {word}{'' if count[word] == 1 else 's'}" for word in ("error", "warning") if count[word]]
    words = words or ["no faults"]
    if count["note"]:
        words.append(f"{count['note']} note{'' if count['note'] == 1 else 's'}")
    say(f"{', '.join(words)} in {len(tables)} table{'' if len(tables) == 1 else 's'}: {names or 'none'}")
    if result.ran:
        missing = f"; this fwts does not have {', '.join(result.ran['missing'])}" if result.ran["missing"] else ""
        say(f"fwts' tests that ran: {', '.join(result.ran['ran'])}{missing}")
