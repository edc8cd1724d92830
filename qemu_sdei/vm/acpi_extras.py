"""What a user adds to a guest's ACPI tables: tables of their own, and errors of the boot before the first."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from qemu_sdei import codec, paths
from qemu_sdei.errors import CperError, UsageError

if TYPE_CHECKING:
    from qemu_sdei.vm.options import GuestOptions

_QEMUS = ("APIC", "GTDT", "MCFG", "SPCR", "DBG2", "IORT", "PPTT")
"""Tables that QEMU's `virt` always has. What it may have besides, the backend sees when it boots."""


@dataclass(frozen=True)
class AcpiExtras:
    """As the guest's configuration has it: see `boot/user_tables.py`."""

    acpi_tables: tuple[str, ...] = ()
    boot_errors: str = ""

    @classmethod
    def of(cls, options: GuestOptions, *, acpi: bool) -> Self:
        """Read the files that `options` name. Raises `UsageError`: they cannot be read, or cannot be that."""
        if not options.acpi_tables and options.boot_error is None:
            return cls()
        if not acpi:
            what = "boot error" if options.boot_error is not None else "ACPI table"
            raise UsageError(f"this guest boots by device tree: give --acpi or --ras, or leave out the {what}")
        tables = [(path, _table(path)) for path in options.acpi_tables]
        if tables:
            _check_once(tables, {**dict.fromkeys(_QEMUS, "QEMU's"), **dict.fromkeys(_ours(options), "ours")})
        from qemu_sdei.boot.user_tables import packed

        errors = b"" if options.boot_error is None else _errors(options.boot_error)
        return cls(packed(data for _, data in tables), base64.b64encode(errors).decode("ascii"))

    @classmethod
    def of_boot(cls, boot: dict[str, Any]) -> Self:
        """Those of a configuration that may be a stranger's. Raises `UsageError`: they cannot be."""
        from qemu_sdei.boot.user_tables import unpacked, unpacked_errors

        given = {name: boot[name] for name in ("acpi_tables", "boot_errors") if name in boot}
        try:
            found = codec.from_data(cls, given)
        except codec.FieldError as error:
            raise UsageError(f"boot configuration: {error}") from None
        unpacked(found.acpi_tables)
        unpacked_errors(found.boot_errors)
        return found


def _table(path: str | Path) -> bytes:
    from qemu_sdei.boot.user_tables import MAX_TABLES, check_table

    data = _read(path, "ACPI table", MAX_TABLES)
    try:
        check_table(data)
    except UsageError as error:
        raise UsageError(f"ACPI table {path}: {error}") from None
    return data


def _ours(options: GuestOptions) -> list[str]:
    from qemu_sdei.sdei.machine_description import MachineDescription

    bert = ["BERT"] if options.boot_error is not None else []
    if not options.sdei:
        return bert
    profile = MachineDescription.default() if options.events is None else MachineDescription.load(options.events)
    wanted = {"SDEI": True, "HEST": bool(profile.sources), "AGDI": bool(profile.for_acpi("agdi"))}
    return bert + [signature for signature, there in wanted.items() if there]


def _check_once(tables: list[tuple[str | Path, bytes]], there: dict[str, str]) -> None:
    from qemu_sdei.boot.user_tables import MANY

    signatures = [data[:4].decode("ascii") for _, data in tables]
    for (path, _), signature in zip(tables, signatures, strict=True):
        if signature in MANY:
            continue
        if signature in there:
            raise UsageError(
                f"ACPI table {path}: the machine has {signature} already ({there[signature]}): there can be only one"
            )
        if Counter(signatures)[signature] > 1:
            raise UsageError(f"ACPI table {path}: {signature} is given twice, and there can be one only")


def _errors(path: str | Path) -> bytes:
    from qemu_sdei.boot.user_tables import MAX_ERRORS, check_errors
    from qemu_sdei.ras.conversion import as_block
    from qemu_sdei.ras.inputs import MAX_INPUT, records

    try:
        blocks = [as_block(found) for found in records(_read(path, "boot error", MAX_INPUT))]
        data = b"".join(block.pack()[: block.size] for block in blocks)
        if len(data) > MAX_ERRORS:
            raise CperError(f"{len(data)} bytes of status blocks are too many: {MAX_ERRORS} are possible")
        check_errors(data)
    except (CperError, UsageError) as error:
        raise UsageError(f"boot error {path}: {error}") from None
    return data


def _read(path: str | Path, what: str, limit: int) -> bytes:
    from qemu_sdei import untrusted_files

    try:
        return untrusted_files.read(paths.resolved(path), limit)
    except UsageError as error:
        raise UsageError(f"{what} {error}") from None
