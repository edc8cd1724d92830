"""What is added to the tables of an ACPI boot: errors of the boot before (BERT), and a user's own tables."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.acpi.table import Oem
from qemu_sdei.acpi.tables import RawTable
from qemu_sdei.acpi.tables.bert import Bert
from qemu_sdei.boot.area import AcpiArea
from qemu_sdei.boot.previous_errors import Stage
from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.ras import Memory
from qemu_sdei.ras.block import block, parse_blocks
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.source import MAX_BLOCK, Source, numbered
from tests.backend.fw_cfg_device import GHES, RAM_BASE, BootingMachine
from tests.backend.test_acpi_boot import tables_of

SSDT = RawTable.build("SSDT", b"\x08ABCD\x01", revision=2, oem=Oem(b"ME", b"MINE")).to_bytes()


@pytest.fixture
def machine(tmp_path: Path) -> BootingMachine:
    return BootingMachine(tmp_path)


def stage_of(machine: BootingMachine) -> Stage:
    return Stage(machine.window.ram, RAM_BASE, AcpiArea.of(machine.config))


def error(address: int, severity: str = "fatal") -> bytes:
    return block([entry(Memory(physical_address=address), severity)]).pack()


def told(machine: BootingMachine) -> list[bytes]:
    """The errors that the kernel finds by the BERT."""
    found = tables_of(machine).get("BERT")
    if found is None:
        return []
    bert = Bert.from_bytes(found)
    area = AcpiArea.of(machine.config)
    assert (bert.region_address, bert.region_length) == area.boot_errors
    region = machine.at(*area.boot_errors)
    return [each.pack()[: each.size] for each in parse_blocks(region)]


def leave_unread(machine: BootingMachine, data: bytes) -> None:
    (placed,) = AcpiArea.of(machine.config).sources(numbered([Source(name="ghes", event=GHES)]))
    machine.window.ram[placed.block - RAM_BASE :][: len(data)] = data


def test_a_boot_tells_of_what_was_fatal_or_unread_in_the_one_before_and_only_that(machine: BootingMachine) -> None:
    machine.boot()
    assert told(machine) == []
    fatal, unread = error(0x5000_0000), error(0x6000_0000, "recoverable")
    stage_of(machine).keep(fatal, 1)
    leave_unread(machine, unread)
    machine.boot(again=True)
    assert told(machine) == [fatal, unread]
    machine.boot(again=True)
    assert told(machine) == [fatal, unread], "a boot that begins twice tells of the same"
    stage_of(machine).keep(error(0x7000_0000), 2)
    machine.boot(epoch=3)
    assert told(machine) == [error(0x7000_0000)]
    machine.boot(epoch=4)
    assert told(machine) == []


def test_an_error_that_was_none_is_forgotten_and_no_other(machine: BootingMachine) -> None:
    machine.boot()
    stage = stage_of(machine)
    for n in (1, 2, 1, 3):
        stage.keep(error(n), 1)
    stage.forget(error(1), 1)
    stage.forget(error(9), 1)
    stage.forget(error(2), 2)
    assert stage.kept(1) == [error(1), error(2), error(3)]


def test_an_error_that_was_kept_and_not_read_is_told_once(machine: BootingMachine) -> None:
    machine.boot()
    stage_of(machine).keep(error(0x5000_0000), 1)
    leave_unread(machine, error(0x5000_0000))
    machine.boot(again=True)
    assert told(machine) == [error(0x5000_0000)]


def test_the_newest_errors_are_told_where_not_all_fit(machine: BootingMachine) -> None:
    machine.boot()
    size = 30_000
    errors = [block([entry(Memory(physical_address=n), "fatal")], raw=bytes(size)).pack() for n in range(4)]
    stage = stage_of(machine)
    for data in errors:
        stage.keep(data, 1)
    assert stage.kept(1) == errors[:2], "there is room for as many"
    machine.boot(again=True)
    assert told(machine) == errors[:2]


def test_whatever_a_guest_leaves_there_its_next_boot_comes_up(machine: BootingMachine) -> None:
    machine.boot()
    area = AcpiArea.of(machine.config)
    (start, size), random_bytes = area.staged_errors, random.Random(5)
    stage = stage_of(machine)
    for n in range(40):
        stage.keep(error(n), 1)
        for _ in range(n + 1):
            at = random_bytes.randrange(400) if n % 2 else random_bytes.randrange(size)
            machine.window.ram[start - RAM_BASE + at] = random_bytes.randrange(256)
        machine.boot(again=True)
        assert all(len(each) <= MAX_BLOCK for each in told(machine))
        for left in stage.kept(1):
            stage.forget(left, 1)


def test_users_tables_come_last_and_a_boot_error_is_told_to_the_first_boot(machine: BootingMachine) -> None:
    text = base64.b64encode(error(0x1000) + error(0x2000)).decode()
    oem1 = RawTable.build("OEM1", b"abc").to_bytes()
    tables = tuple(base64.b64encode(data).decode() for data in (SSDT, oem1))
    machine.config = replace(machine.config, acpi_tables=tables, boot_errors=text)
    machine.boot()
    found = tables_of(machine)
    assert (found["SSDT"], found["OEM1"]) == (SSDT, oem1), "of the two SSDTs theirs is the last"
    assert told(machine) == [error(0x1000), error(0x2000)]
    machine.boot(again=True)
    assert told(machine) == []
    assert tables_of(machine)["OEM1"] == oem1


def test_a_bert_of_the_users_own_stays(machine: BootingMachine) -> None:
    bert = Bert(region_address=0x1000, region_length=64).to_bytes()
    machine.config = replace(machine.config, acpi_tables=(base64.b64encode(bert).decode(),))
    machine.boot()
    stage_of(machine).keep(error(0x5000_0000), 1)
    machine.boot(again=True)
    assert tables_of(machine)["BERT"] == bert


def test_what_the_machine_has_already_is_refused(machine: BootingMachine) -> None:
    mcfg = RawTable.build("MCFG", bytes(8)).to_bytes()
    machine.config = replace(machine.config, acpi_tables=(base64.b64encode(mcfg).decode(),))
    with pytest.raises(GuestError, match="the machine has a table MCFG already, and there can be only one"):
        machine.boot()


@pytest.mark.parametrize(
    ("tables", "errors", "message"),
    [
        (("?",), "", "not base64"),
        ((base64.b64encode(SSDT[:-1]).decode(),), "", "names a length of 42 bytes and has 41"),
        ((base64.b64encode(SSDT).decode(),) * 1600, "", "bytes of ACPI tables are too many"),
        ((), "?", "not base64"),
        ((), base64.b64encode(bytes(20)).decode(), "has no entry"),
        ((), base64.b64encode(b"\x10\0\0\0" + bytes(60000)).decode(), "60004 bytes of boot errors are too many"),
    ],
)
def test_a_configuration_of_a_strangers_is_checked(
    machine: BootingMachine, tables: tuple[str, ...], errors: str, message: str
) -> None:
    machine.config = replace(machine.config, acpi_tables=tables, boot_errors=errors)
    with pytest.raises(UsageError, match=message):
        machine.loader()
