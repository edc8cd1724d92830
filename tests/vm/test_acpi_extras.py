"""Files with ACPI tables and with errors of the boot before: what is taken, and what is refused in one line."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.acpi.tables import RawTable
from qemu_sdei.errors import UsageError
from qemu_sdei.ras import Memory
from qemu_sdei.ras.block import block
from qemu_sdei.ras.conversion import as_record
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.libcper import to_json
from qemu_sdei.vm.acpi_extras import AcpiExtras
from qemu_sdei.vm.options import GuestOptions

SSDT = RawTable.build("SSDT", b"\x08ABCD\x01", revision=2).to_bytes()
ERROR = block([entry(Memory(physical_address=0x1000), "fatal")])


def of(*tables: Path, error: Path | None = None, acpi: bool = True, **more: Any) -> AcpiExtras:
    return AcpiExtras.of(GuestOptions(acpi_tables=tables, boot_error=error, **more), acpi=acpi)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_tables_and_errors_go_into_the_configuration(tmp_path: Path) -> None:
    mine = written(tmp_path / "mine.aml", SSDT)
    link = tmp_path / "link"
    link.symlink_to(mine)
    extras = of(mine, link, error=written(tmp_path / "error", base64.b64encode(ERROR.pack())))
    assert [base64.b64decode(text) for text in extras.acpi_tables] == [SSDT, SSDT]
    assert base64.b64decode(extras.boot_errors) == ERROR.pack()
    boot = {"kind": "linux", "acpi_tables": list(extras.acpi_tables), "boot_errors": extras.boot_errors}
    assert AcpiExtras.of_boot(boot) == extras
    assert of() == AcpiExtras.of_boot({}) == AcpiExtras()


def test_an_error_may_be_json_or_a_whole_record(tmp_path: Path) -> None:
    import json

    for name, data in (
        ("json", json.dumps(to_json(ERROR)).encode()),
        ("record", as_record(ERROR).pack()),
        ("hex", ERROR.pack().hex().encode()),
    ):
        found = of(error=written(tmp_path / name, data))
        assert base64.b64decode(found.boot_errors)[:20] == ERROR.pack()[:20], name


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it does not begin with the signature"),
        (b"\x1b[2J" + bytes(60), "it does not begin with the signature"),
        (b"SSDT", "SSDT has 4 bytes: a table has 36 at least"),
        (SSDT + b"x", "SSDT names a length of 42 bytes and has 43"),
        (SSDT[:-1] + b"\x02", "SSDT has a wrong checksum"),
        (RawTable.build("DSDT", b"").to_bytes(), "DSDT is a table of the machine's own"),
        (RawTable.build("XSDT", b"").to_bytes(), "XSDT is a table of the machine's own"),
        (b"RSD PTR " + bytes(28), "RSD is a table of the machine's own"),
        (RawTable.build("APIC", b"").to_bytes(), "the machine has APIC already .QEMU's.: there can be only one"),
        (RawTable.build("HEST", b"").to_bytes(), "the machine has HEST already .ours."),
        (RawTable.build("SSDT", bytes(70000)).to_bytes(), "more than it can have"),
    ],
)
def test_what_is_no_table_that_a_guest_can_be_given(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        of(written(tmp_path / "table", data))
    assert "\n" not in str(error.value)


def test_other_refusals(tmp_path: Path) -> None:
    mine, oem1 = written(tmp_path / "mine", SSDT), written(tmp_path / "oem", RawTable.build("OEM1", b"").to_bytes())
    with pytest.raises(UsageError, match="boots by device tree: give --acpi or --ras, or leave out the ACPI table"):
        of(mine, acpi=False)
    with pytest.raises(UsageError, match="or leave out the boot error"):
        of(error=mine, acpi=False)
    with pytest.raises(UsageError, match="OEM1 is given twice"):
        of(oem1, oem1)
    with pytest.raises(UsageError, match="bytes of ACPI tables are too many"):
        of(*[mine] * 1600)
    with pytest.raises(UsageError, match=r"boot error .*mine: it is no record and no status block"):
        of(error=mine)
    with pytest.raises(UsageError, match="none cannot be read: No such file"):
        of(tmp_path / "none")
    with pytest.raises(UsageError, match="it is not a regular file"):
        of(Path("/dev/zero"))
    many = written(tmp_path / "many", ERROR.pack() * 400)
    with pytest.raises(UsageError, match="bytes of status blocks are too many: 49152"):
        of(error=many)


def test_what_the_description_has_not_may_be_the_users(tmp_path: Path) -> None:
    events = tmp_path / "events.toml"
    events.write_text('[[event]]\nnumber = 0\nname = "software"\nsignalable = true\n')
    hest = written(tmp_path / "hest", RawTable.build("HEST", bytes(4)).to_bytes())
    options = GuestOptions(acpi_tables=[hest], events=events)
    assert len(AcpiExtras.of(options, acpi=True).acpi_tables) == 1
    assert len(AcpiExtras.of(replace(options, events=None, sdei=False), acpi=True).acpi_tables) == 1


@pytest.mark.parametrize("boot", [{"acpi_tables": 7}, {"acpi_tables": ["?"]}, {"boot_errors": ["x"]}])
def test_a_strangers_are_checked(boot: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        AcpiExtras.of_boot(boot)
