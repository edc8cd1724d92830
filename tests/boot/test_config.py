"""What to boot, as data that goes through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qemu_sdei.boot.area import AcpiArea
from qemu_sdei.boot.config import MAX_APPEND, BootConfig
from qemu_sdei.errors import UsageError
from qemu_sdei.ras.source import Source


def test_it_survives_json() -> None:
    config = BootConfig(
        "linux", "/k", initrd="/i", append="quiet", conduit="hvc", sdei=False, ram_size=1 << 29, nr_cpus=7
    )
    assert BootConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_usable_memory_is_what_is_not_hidden() -> None:
    assert BootConfig("linux", "/k", ram_size=1 << 30, hidden_size=0x40_0000).usable_size == (1 << 30) - 0x40_0000


def test_acpi_takes_a_block_of_its_own_from_the_memory_below_the_window() -> None:
    dt, acpi = (BootConfig("linux", "/k", tables=tables, ram_size=96 << 20) for tables in ("dt", "acpi"))
    assert dt.usable_size - acpi.usable_size == 2 << 20
    area = AcpiArea.of(acpi)
    assert area.base == acpi.ram_base + acpi.usable_size
    assert sum(area.tables) == area.status[0]
    assert sum(area.status) == dt.ram_base + dt.usable_size
    with pytest.raises(UsageError, match="use --acpi"):
        AcpiArea.of(dt)


def test_error_sources_do_not_overlap_and_are_bounded() -> None:
    area = AcpiArea.of(BootConfig("linux", "/k", tables="acpi"))
    start, size = area.status
    used: set[int] = set()
    sizes = (4096, 20, 65536, 4100)
    described = [
        Source(name=str(n), event=n, block=size, type="ghes" if n == 4 else "ghes-v2")
        for n, size in enumerate(sizes, 1)
    ]
    placed = area.sources(described)
    assert [each.source for each in placed] == described
    places = [range(each.block, each.block + each.block_size) for each in placed]
    places += [range(*(place[0], sum(place))) for place in (area.boot_errors, area.staged_errors)]
    registers = [each for source in placed for each in (source.address_register, source.read_ack) if each is not None]
    for mine in (*places, *(range(each, each + 8) for each in registers)):
        assert not used.intersection(mine)
        assert start <= mine.start < mine.stop <= start + size
        used.update(mine)
    assert len(registers) == 7, "one of version 1 has no read-ack register"
    many = [Source(name=str(n), event=n) for n in range(1, 114)]
    assert len(area.sources(many[:-1])) == 112
    with pytest.raises(UsageError, match="113 error sources with these blocks take 904 KiB: 896 are there"):
        area.sources(many)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "windows"}, "field 'kind' has the wrong type"),
        ({"conduit": "abc"}, "field 'conduit' has the wrong type"),
        ({"tables": "smbios"}, "field 'tables' has the wrong type"),
        ({"tables": "acpi", "kind": "flat"}, "ACPI is for Linux"),
        ({"append": "a\0b"}, "NUL"),
        ({"append": "x" * (MAX_APPEND + 1)}, "make it shorter"),
        ({"append": "\ud800"}, "no text"),
        ({"ram_size": 1 << 20}, "more memory"),
        ({"ram_size": "1G"}, "field 'ram_size' has the wrong type"),
        ({"nr_cpus": True}, "field 'nr_cpus' has the wrong type"),
        ({"sdei": 1}, "field 'sdei' has the wrong type"),
        ({"initrd": 5}, "field 'initrd' has the wrong type"),
        ({"kernel": None}, "field 'kernel' has the wrong type"),
        ({"surprise": 1}, "unknown field 'surprise'"),
    ],
)
def test_what_cannot_be_is_said(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BootConfig.from_json(BootConfig("linux", "/k").to_json() | change)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(UsageError, match="field 'kernel' is missing"):
        BootConfig.from_json({"kind": "linux"})


def test_a_command_line_of_the_longest_length_is_taken() -> None:
    assert BootConfig("linux", "/k", append="x" * MAX_APPEND).append
