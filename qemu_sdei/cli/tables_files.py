"""Files of tables as `qemu-sdei tables check`, `show` and `diff` take them: a table, several, a dump, a directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qemu_sdei import paths
from qemu_sdei.cli.files import MAX_INPUT, read_file
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.acpi.errors import TableError
    from qemu_sdei.acpi.formats.acpidump import Entry

HELP: Final = (
    "a table in binary, several one after another, acpidump's text (or that of xxd, hexdump, od, acpiview; arrays, "
    "base64; in a mail, a log, gzip), sources for iasl, or a directory of such files; - is standard input"
)
_MAX_FILES: Final = 1000
"""Files of a directory."""


@dataclass(slots=True)
class TableFile:
    """What was found in one file."""

    path: str
    entries: list[Entry]
    faults: list[TableError]
    """What else is in it; if there are no tables, one that says what the file is."""
    directory: str = ""
    """The directory that was given instead of the file."""
    notes: list[str] = field(default_factory=list)
    """In what form the tables came, if it is another than they should have: `quoted mail, 12 lines`."""
    foreign: bool = False
    """It is plainly something else than tables, damaged or not."""


@dataclass(slots=True)
class TableSet:
    """Tables that are taken for those of one machine, and the files that they are from."""

    path: str
    """A file or a directory; "" if they are from several files."""
    entries: list[Entry] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """The file of each entry."""

    def add(self, file: TableFile) -> None:
        """Take in the tables of one more file."""
        self.entries += file.entries
        self.paths += [file.path] * len(file.entries)


def load(names: Sequence[str]) -> list[TableFile]:
    """The tables in files and directories. Raises `UsageError`: one of these cannot be read."""
    found: list[TableFile] = []
    for path in names:
        if path != "-" and paths.expand(path).is_dir():
            found += _directory(path)
        else:
            found.append(_file(path))
    return found


def named(faults: Sequence[TableError], entries: Sequence[Entry]) -> list[str]:
    """What to say of a file's faults, one line each."""
    if not entries:
        return [fault.message for fault in faults]
    return [
        fault.message if fault.offset is None else f"from here on this is not a table: {fault.message}"
        for fault in faults
    ]


def sets(files: Sequence[TableFile]) -> list[TableSet]:
    """Which tables are of one machine: those of a file or directory of several, and all from files of one table."""
    found: list[TableSet] = []
    alone = TableSet("")
    directories: dict[str, TableSet] = {}
    for file in files:
        if not file.entries:
            continue
        if file.directory:
            if file.directory not in directories:
                found.append(directories.setdefault(file.directory, TableSet(file.directory)))
            directories[file.directory].add(file)
        elif len(file.entries) == 1:
            alone.add(file)
        else:
            found.append(TableSet(file.path))
            found[-1].add(file)
    if alone.entries:
        alone.path = alone.paths[0] if len(alone.entries) == 1 else ""
        found.append(alone)
    return found


def _file(path: str, directory: str = "") -> TableFile:
    from qemu_sdei.acpi.kinds import SOURCES, what
    from qemu_sdei.acpi.parse import read
    from qemu_sdei.cli.tables_sources import compiled

    data = read_file(path, "table file")
    found = read(data)
    kind = "" if found.entries else what(data)
    if kind in SOURCES and (made := compiled(data)) is not None:
        found, kind = made, ""
    return TableFile(path, found.entries, found.faults, directory, found.notes, foreign=kind != "")


def _directory(path: str) -> list[TableFile]:
    """The files of a directory, such as /sys/firmware/acpi/tables, without those that are plainly something else."""
    try:
        names = sorted(each for each in paths.expand(path).iterdir() if _may_be_tables(each))
    except OSError as error:
        raise UsageError(f"directory {path} cannot be read: {error.strerror}") from None
    if len(names) > _MAX_FILES:
        raise UsageError(f"directory {path} has more than {_MAX_FILES} files: name those that have tables")
    found = [file for each in names if not (file := _of_directory(str(each), path)).foreign]
    if not any(file.entries for file in found):
        odd = f": {found[0].path}: {found[0].faults[0].message}" if found else ""
        raise UsageError(f"directory {path} has no file with ACPI tables in it{odd}")
    return found


def _may_be_tables(path: Path) -> bool:
    return path.name[0] != "." and path.is_file() and path.stat().st_size <= MAX_INPUT


def _of_directory(path: str, directory: str) -> TableFile:
    """One of its files: if it cannot be read that is a fault of the file, and does not hide the others."""
    from qemu_sdei.acpi.errors import TableError

    try:
        return _file(path, directory)
    except UsageError as error:
        return TableFile(path, [], [TableError(str(error))], directory)
