"""QEMU's real tables linked with ours, for the smallest machine and the largest: they fit, and every rule is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qemu_sdei.acpi.errors import AcpiError
from qemu_sdei.acpi.linker import RSDP_FILE, Blob, Loaded
from qemu_sdei.acpi.parse import parse
from qemu_sdei.acpi.table import with_checksum
from qemu_sdei.acpi.tables import Fadt, Hest, RawTable, Rsdp, Xsdt
from qemu_sdei.acpi.verify import verify
from qemu_sdei.backend.reset import machine_files
from qemu_sdei.boot.acpi import FILES, link, wanted_files
from qemu_sdei.boot.area import AcpiArea, Announced
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.boot.machine_tables import add
from qemu_sdei.ras.source import Source, numbered
from qemu_sdei.tables.fw_cfg_qtest import read_files

ANNOUNCED = Announced(numbered([Source(name="a", event=0x324), Source(name="b", event=0x40)]), 0x325)


@pytest.mark.guest
@pytest.mark.parametrize(
    ("cpus", "extra", "more"),
    [
        (1, [], ()),
        (512, [], ()),
        (2, ["-machine", "ras=on"], ("etc/hardware_errors",)),
    ],
    ids=["1 CPU", "512 CPUs", "QEMU's own HEST"],
)
def test_real_tables_are_linked_and_keep_the_rules(cpus: int, extra: list[str], more: tuple[str, ...]) -> None:
    qemu = shutil.which("qemu-system-aarch64")
    if qemu is None:
        pytest.skip("no qemu-system-aarch64")
    files = read_files(
        [*FILES, *more],
        qemu=Path(qemu), nr_cpus=cpus, ram_size=1 << 30, cpu="cortex-a72", virtualization=False, extra=extra,
    )  # fmt: skip
    for name in FILES:
        assert len(files[name]) <= machine_files.SIZES.get(name, machine_files.SMALL)
    config = BootConfig("linux", "/k", tables="acpi", nr_cpus=cpus)
    assert wanted_files(files["etc/table-loader"]) == more
    linked = link(config, files, ANNOUNCED)
    start, size = AcpiArea.of(config).tables
    parts = dict(linked.tables.parts)
    assert all(start <= address <= address + len(data) <= start + size for address, data in parts.items())

    def at(address: int) -> bytes:
        (base,) = (base for base, data in parts.items() if base <= address < base + len(data))
        data = parts[base][address - base :]
        return data[: int.from_bytes(data[4:8], "little")]

    rsdp = parse(parts[linked.tables.rsdp][:36])
    assert isinstance(rsdp, Rsdp)
    xsdt = at(rsdp.xsdt_address)
    tables = [at(address) for address in Xsdt.from_bytes(xsdt).entries]
    signatures = [table[:4].decode() for table in tables]
    assert len(signatures) == len(set(signatures)), "one of each"
    assert {"SDEI", "HEST", "AGDI", "FACP", "APIC", "MCFG"} <= set(signatures)
    for table in (rsdp.to_bytes(), xsdt, *tables):
        assert not verify(table), table[:4]
    fadt = Fadt.from_bytes(tables[signatures.index("FACP")])
    assert fadt.psci_compliant
    assert RawTable.from_bytes(at(fadt.x_dsdt)).signature == "DSDT"
    hest = Hest.from_bytes(tables[signatures.index("HEST")])
    assert len({source.source_id for source in hest.sources}) == len(hest.sources) == 2 + len(more)
    assert bool(linked.pointers) == bool(more)


def test_a_table_that_is_named_without_end() -> None:
    """Each name costs a look at the whole table."""
    base = 0x4000_0000
    large = with_checksum(b"OEM1" + (1 << 18).to_bytes(4, "little") + bytes([1, 0]) + bytes((1 << 18) - 10))
    xsdt = Xsdt(entries=(base,) * 1000).to_bytes()
    rsdp = Rsdp(xsdt_address=base + len(large)).to_bytes()
    blobs = {RSDP_FILE: Blob(base - 4096, bytearray(rsdp)), "tables": Blob(base, bytearray(large + xsdt))}
    with pytest.raises(AcpiError, match="out of proportion"):
        add(Loaded(blobs), "smc", lambda _: [])
