"""QEMU's tables made complete: PSCI in the FADT, and our own tables among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qemu_sdei.acpi import AcpiError
from qemu_sdei.acpi.linker import RSDP_FILE, Loaded
from qemu_sdei.acpi.own import BootErrors, GhesSource, own_tables
from qemu_sdei.acpi.table import HEADER_SIZE, Oem, Table, checksum
from qemu_sdei.acpi.tables import Fadt, Hest, RawTable, Rsdp, Xsdt
from qemu_sdei.acpi.tables.hest import Ghes, Notification
from qemu_sdei.acpi.tables.hest_source import NO_SOURCE
from qemu_sdei.boot.area import ErrorSource
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.boot.user_tables import MANY
from qemu_sdei.errors import GuestError
from qemu_sdei.ras.source import Notify, Source

_LINE: Final = 64
"""Bytes that new tables are aligned to."""


@dataclass(frozen=True, slots=True)
class MachineTables:
    """The tables of a machine, where they go."""

    rsdp: int
    """Physical address."""
    parts: tuple[tuple[int, bytes], ...]
    """Physical address and bytes of everything."""
    end: int
    """The first free byte behind all of it."""


def complete(
    loaded: Loaded,
    config: BootConfig,
    sources: Sequence[ErrorSource],
    agdi_event: int | None,
    boot_errors: BootErrors | None = None,
    extra: Sequence[bytes] = (),
    agdi_gsiv: int | None = None,
) -> MachineTables:
    """QEMU's tables as the table loader left them, with PSCI announced, and with ours behind them.

    See `add`. Our tables have the OEM ids of QEMU's FADT; of a guest that is not to know of SDEI there is at most a
    BERT, which `boot_errors` asks for. `extra`: tables of the user's.
    """

    def ours(fadt: Oem) -> list[Table]:
        if not config.sdei:
            return own_tables(oem=fadt, sdei=False, boot_errors=boot_errors)
        ghes = [ghes_of(each.source, each.address_register, each.read_ack) for each in sources]
        return own_tables(
            oem=fadt,
            ghes=ghes,
            agdi_event=agdi_event,
            agdi_gsiv=agdi_gsiv,
            boot_errors=boot_errors,
            firmware_first=bool(ghes),
        )

    return add(loaded, config.conduit, ours, extra)


def ghes_of(source: Source, address_register: int, read_ack: int | None) -> GhesSource:
    """What the HEST is to say of a source, whose registers are at these physical addresses. `read_ack`: None for one
    that has none.
    """
    notification = None
    if source.notify is Notify.SEA:
        notification = Notification.sea()
    elif source.notify is Notify.EXTERNAL:
        notification = Notification.interrupt(source.interrupt or 0)
    elif source.interrupt is not None:
        notification = Notification.gsiv(source.interrupt)
    elif source.poll_ms is not None:
        notification = Notification.polled(source.poll_ms)
    return GhesSource(
        event=source.event,
        status_address=address_register,
        block_length=source.block,
        read_ack_address=read_ack,
        notification=notification,
        source_id=source.id,
        raw_length=source.raw,
        records=source.records,
        sections=source.sections,
        enabled=source.enabled,
    )


def add(
    loaded: Loaded, conduit: str, make: Callable[[Oem], Sequence[Table]], extra: Sequence[bytes] = ()
) -> MachineTables:
    """QEMU's tables as the table loader left them, with PSCI announced, and with those that `make` makes behind them.

    Whatever QEMU has made stays as it is, but for the FADT's boot flags, and for the XSDT, which gets longer and is
    therefore another one. A HEST of QEMU's own (`-machine ras=on`) is replaced by one with its sources and ours: there
    can be only one. Ours keep their ids, by which people name them; of QEMU's those get others that ours have.

    Args:
        loaded: QEMU's tables; they are changed.
        conduit: "smc" or "hvc", of PSCI and SDEI.
        make: called with the OEM ids of QEMU's FADT.
        extra: tables of the user's, which come last.

    Raises:
        AcpiError: QEMU's tables are damaged or unusual: no RSDP of revision 2, no XSDT, no FADT, a wrong checksum.
        GuestError: one of `extra` is there already, and there can be one only.
    """
    if RSDP_FILE not in loaded.blobs:
        raise AcpiError(f"the script does not place {RSDP_FILE}")
    memory = _Memory(loaded)
    root = loaded.blobs[RSDP_FILE]
    rsdp = Rsdp.from_bytes(bytes(root.data[: max(int.from_bytes(root.data[20:24], "little"), 36)]))
    xsdt = Xsdt.from_bytes(memory.table(rsdp.xsdt_address))
    entries = list(xsdt.entries)
    found = {bytes(memory.table(address)[:4]): address for address in entries}
    if b"FACP" not in found:
        raise AcpiError("there is no FADT")
    fadt = Fadt.from_bytes(memory.table(found[b"FACP"]))
    memory.put(found[b"FACP"], fadt.replace(psci_compliant=True, psci_use_hvc=conduit == "hvc").to_bytes())
    ours = list(make(Oem(fadt.oem.oem_id, fadt.oem.oem_table_id)))
    if b"HEST" in found and any(isinstance(table, Hest) for table in ours):
        theirs = Hest.from_bytes(memory.table(found[b"HEST"]))
        ours = [_merged(theirs, table) if isinstance(table, Hest) else table for table in ours]
        entries.remove(found[b"HEST"])
    _check_once(extra, {*(name.decode("latin-1") for name in found), *(table.signature for table in ours)})
    ours += [RawTable(data=data) for data in extra]
    end = max(blob.end for blob in loaded.blobs.values())
    added = []
    for table in ours:
        address = (end + _LINE - 1) & -_LINE
        added.append((address, table.to_bytes()))
        entries.append(address)
        end = address + len(added[-1][1])
    address = (end + _LINE - 1) & -_LINE
    added.append((address, replace(xsdt, entries=tuple(entries)).to_bytes()))
    end = address + len(added[-1][1])
    data = replace(rsdp, xsdt_address=address).to_bytes()
    root.data[: len(data)] = data
    parts = [(blob.address, bytes(blob.data)) for blob in loaded.blobs.values()]
    return MachineTables(root.address, (*parts, *added), end)


def _check_once(extra: Sequence[bytes], there: set[str]) -> None:
    for data in extra:
        signature = data[:4].decode("ascii")
        if signature in there and signature not in MANY:
            raise GuestError(f"the machine has a table {signature} already, and there can be only one: leave yours out")


def _merged(theirs: Hest, ours: Table) -> Hest:
    """One HEST: their sources, then ours."""
    assert isinstance(ours, Hest)
    taken = {source.source_id for source in ours.sources}
    free = iter(sorted(set(range(NO_SOURCE)) - taken - {source.source_id for source in theirs.sources}))
    ids = {source.source_id: next(free) if source.source_id in taken else source.source_id for source in theirs.sources}
    moved = []
    for source in theirs.sources:
        changed: dict[str, int] = {"source_id": ids[source.source_id]}
        if isinstance(source, Ghes):
            changed["related_source_id"] = ids.get(source.related_source_id, source.related_source_id)
        moved.append(replace(source, **changed))
    return replace(theirs, sources=(*moved, *ours.sources))


class _Memory:
    """What the table loader has placed, by physical address."""

    def __init__(self, loaded: Loaded) -> None:
        self._blobs = list(loaded.blobs.values())
        self._left = 4 * sum(len(blob.data) for blob in self._blobs)
        """Bytes that may still be read: an XSDT could name one large table as often as it likes."""

    def table(self, address: int) -> bytes:
        """The table at `address`. Raises AcpiError: there is none, or its checksum is wrong."""
        data, at = self._find(address)
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        table = bytes(memoryview(data)[at : at + size])
        self._left -= len(table)
        if self._left < 0:
            raise AcpiError(f"the tables are out of proportion: with that at {address:#x} some are named too often")
        if size < HEADER_SIZE or len(table) != size:
            raise AcpiError(f"the table at {address:#x} names a length of {size} bytes, which is not there")
        if checksum(table):
            raise AcpiError(f"the table {table[:4].decode('latin-1')!r} at {address:#x} has a wrong checksum")
        return table

    def put(self, address: int, table: bytes) -> None:
        """Write a table over one of the same size."""
        data, at = self._find(address)
        data[at : at + len(table)] = table

    def _find(self, address: int) -> tuple[bytearray, int]:
        for blob in self._blobs:
            if blob.address <= address < blob.end:
                return blob.data, address - blob.address
        raise AcpiError(f"there is no table at {address:#x}")
