"""How `qemu-sdei tables` writes a set of tables: which format goes into one file, which into a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qemu_sdei import paths
from qemu_sdei.cli.files import write_file, write_files, write_output
from qemu_sdei.cli.output import say
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.acpi.formats.acpidump import Entry

SUFFIXES: Final = {"aml": ".aml", "dsl": ".dsl", "acpidump": ".txt", "hex": ".hex"}
"""Formats of which a directory gets a file per table."""
_WHOLE: Final = {"c": "acpi_tables.c", "cpio": "acpi_override.cpio"}
"""Formats that hold all tables in one file, with its name in a directory."""
_BINARY: Final = frozenset({"aml", "cpio"})


def write(entries: Sequence[Entry], form: str, output: str | None, *, force: bool, quiet: bool) -> None:
    """Write `entries` in the format `form` to the file or directory `output`, or to standard output.

    Raises:
        UsageError: the format cannot hold them, or not there; or a file is in the way.
        AcpiError: iasl is missing or does not take a table.
    """
    directory = _directory(output)
    if form == "edk2" and directory is None:
        directory = None if output is None else paths.expand(output)
        if directory is None and len(entries) > 1:
            raise UsageError(
                "--format edk2 is a directory of sources: give -o DIR/ (or one --table, to see its source)"
            )
    if directory is not None:
        files = _files(entries, form, quiet)
        write_files(directory, files, force=force)
        if not quiet:
            say(f"qemu-sdei: {len(files)} file{'' if len(files) == 1 else 's'} written to {directory}", error=True)
        return
    if form == "dsl" and len(entries) > 1 and output not in (None, "-"):
        raise UsageError("iasl compiles one table a file: give a directory, -o DIR/, or one --table")
    data = _one(entries, form, quiet)
    if output is None or output == "-":
        write_output(data, output, force=force, binary=form in _BINARY, what=f"--format {form}")
    else:
        write_file(paths.expand(output), data, force=force)


def _directory(output: str | None) -> Path | None:
    if output is None or output == "-":
        return None
    path = paths.expand(output)
    return path if output.endswith("/") or path.is_dir() else None


def _files(entries: Sequence[Entry], form: str, quiet: bool) -> dict[str, bytes]:
    """What a directory gets."""
    from qemu_sdei.acpi.formats import file_names

    if form == "edk2":
        return _edk2(entries)
    if form == "dsl":
        return {name: text.encode() for name, text in _dsl(entries, quiet).items()}
    if form in _WHOLE:
        return {_WHOLE[form]: _one(entries, form, quiet)}
    names = file_names([entry.data for entry in entries])
    return {name + SUFFIXES[form]: _one([entry], form, quiet) for name, entry in zip(names, entries, strict=True)}


def _one(entries: Sequence[Entry], form: str, quiet: bool) -> bytes:
    """All tables in one file."""
    from qemu_sdei.acpi.formats import acpidump, carray, hexdump

    tables = [entry.data for entry in entries]
    if form == "aml":
        return b"".join(tables)
    if form == "acpidump":
        return acpidump.write(entries).encode()
    if form == "c":
        return carray.write(tables).encode()
    if form == "hex":
        return hexdump.write(tables).encode()
    if form == "cpio":
        return _cpio(tables)
    if form == "edk2":
        return next(data for name, data in _edk2(entries).items() if not name.endswith(".inf"))
    return "\n".join(_dsl(entries, quiet).values()).encode()


def _dsl(entries: Sequence[Entry], quiet: bool) -> dict[str, str]:
    from qemu_sdei.acpi.formats import dsl
    from qemu_sdei.acpi.iasl import Iasl

    sources, notes = dsl.files([entry.data for entry in entries], Iasl())
    for note in () if quiet else notes:
        say(f"qemu-sdei: {note}", error=True)
    return sources


def _cpio(tables: Sequence[bytes]) -> bytes:
    from qemu_sdei.acpi.formats import override
    from qemu_sdei.boot import cpio

    return cpio.archive(cpio.file(path, data) for path, data in override.files(tables).items())


def _edk2(entries: Sequence[Entry]) -> dict[str, bytes]:
    from qemu_sdei.acpi.formats import edk2

    return edk2.of_tables([entry.data for entry in entries])
