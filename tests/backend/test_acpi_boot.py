"""An ACPI boot against a fw_cfg in Python: what is in RAM then, damage of every kind, backends that die on the way."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_sdei.acpi.fdt import parse, total_size
from qemu_sdei.acpi.linker import Allocate, Command, WritePointer, emit
from qemu_sdei.acpi.linker import parse as parse_script
from qemu_sdei.acpi.tables import Agdi, Fadt, Hest, Rsdp, Xsdt
from qemu_sdei.acpi.tables.hest import GhesV2, NotificationType
from qemu_sdei.boot.area import AcpiArea
from qemu_sdei.errors import GuestError
from qemu_sdei.monitor.ops import MicroOp
from qemu_sdei.ras.source import Source, numbered
from tests.backend.fw_cfg_device import AGDI, GHES, BootingMachine, machine_files

SCRIPT = "etc/table-loader"


@pytest.fixture
def machine(tmp_path: Path) -> BootingMachine:
    return BootingMachine(tmp_path)


def tables_of(machine: BootingMachine) -> dict[str, bytes]:
    """The tables that a kernel finds, from X0 on: device tree, EFI system table, RSDP, XSDT."""
    tree = machine.at(machine.entry.x0, total_size(machine.at(machine.entry.x0, 64)))
    chosen = parse(tree).root.ensure("chosen").properties
    system_table = int.from_bytes(chosen["linux,uefi-system-table"], "big")
    count, entries = (int.from_bytes(machine.at(system_table + at, 8), "little") for at in (104, 112))
    (rsdp,) = (
        int.from_bytes(machine.at(entries + 24 * n + 16, 8), "little")
        for n in range(count)
        if machine.at(entries + 24 * n, 4) == bytes.fromhex("71e86888")
    )
    found = {"RSDP": machine.at(rsdp, 36)}

    def table(address: int) -> bytes:
        data = machine.at(address, int.from_bytes(machine.at(address + 4, 4), "little"))
        assert sum(data) % 256 == 0
        assert start <= address < start + size
        found[data[:4].decode()] = data
        return data

    start, size = AcpiArea.of(machine.config).tables
    for address in Xsdt.from_bytes(table(Rsdp.from_bytes(found["RSDP"]).xsdt_address)).entries:
        table(address)
    table(Fadt.from_bytes(found["FACP"]).x_dsdt)
    return found


def test_kernel_finds_qemus_tables_and_ours(machine: BootingMachine) -> None:
    machine.boot()
    found = tables_of(machine)
    assert set(found) == {"RSDP", "XSDT", "FACP", "DSDT", "MCFG", "SDEI", "HEST", "AGDI", "SSDT"}
    fadt = Fadt.from_bytes(found["FACP"])
    assert (fadt.psci_compliant, fadt.psci_use_hvc) == (True, False)
    assert Agdi.from_bytes(found["AGDI"]).sdei_event == AGDI
    (source,) = Hest.from_bytes(found["HEST"]).sources
    assert isinstance(source, GhesV2)
    assert (source.notification.type, source.notification.vector) == (NotificationType.SDEI, GHES)


def test_error_sources_lead_to_the_status_area(machine: BootingMachine) -> None:
    machine.boot()
    (source,) = Hest.from_bytes(tables_of(machine)["HEST"]).sources
    assert isinstance(source, GhesV2)
    area = AcpiArea.of(machine.config)
    (known,) = area.sources(numbered([Source(name="ghes", event=GHES)]))
    start, size = area.status
    assert source.error_status_address.address == known.address_register
    assert known.read_ack is not None
    assert source.read_ack.address == known.read_ack
    block = int.from_bytes(machine.at(known.address_register, 8), "little")
    assert block == known.block
    assert start <= block <= block + source.block_length <= start + size
    assert machine.at(block, known.block_size) == bytes(known.block_size), "no error yet"
    assert machine.at(known.read_ack, 8) == (1).to_bytes(8, "little"), "firmware may write"


def test_hvc_is_announced_where_it_is_the_conduit(machine: BootingMachine) -> None:
    machine.config = replace(machine.config, conduit="hvc")
    machine.boot()
    assert Fadt.from_bytes(tables_of(machine)["FACP"]).psci_use_hvc


def test_second_boot_clears_first_and_ends_the_same(machine: BootingMachine) -> None:
    machine.boot()
    area = AcpiArea.of(machine.config)
    first = bytes(machine.window.ram[: area.staged_errors[0] - machine.config.ram_base])
    start, size = area.status
    machine.window.ram[start - machine.config.ram_base :][:size] = b"\xee" * size  # an error that nobody read
    machine.boot(again=True)
    assert bytes(machine.window.ram[: len(first)]) == first


def test_tables_are_selected_before_their_size_is_believed(machine: BootingMachine) -> None:
    """QEMU builds them anew when they are selected after a reset; they may be larger then."""
    machine.boot()
    names = machine.device.selected
    assert names.index("etc/acpi/tables") < len(names) - 1 - names[::-1].index("")


def test_files_that_only_the_script_names_are_read_and_told_of(tmp_path: Path) -> None:
    files = machine_files()
    files["etc/errors"] = b"E" * 100
    files["etc/errors_addr"] = bytes(8)
    more: list[Command] = [Allocate("etc/errors", 4096), WritePointer("etc/errors_addr", "etc/errors", 0, 16, 8)]
    files[SCRIPT] = emit([*parse_script(files[SCRIPT]), *more])
    machine = BootingMachine(tmp_path, files)
    assert machine.boot() == 4
    ((name, offset, data),) = machine.device.written
    assert (name, offset) == ("etc/errors_addr", 0)
    assert machine.at(int.from_bytes(data, "little"), 84) == b"E" * 84


@pytest.mark.parametrize("again", [False, True])
def test_backend_that_dies_between_any_two_exchanges(tmp_path: Path, again: bool) -> None:
    """Another one runs the journal's frames again, which must change nothing that the guest's side has done since."""
    files = machine_files()
    files["etc/errors"] = b"E" * 100
    files["etc/errors_addr"] = bytes(8)
    more: list[Command] = [Allocate("etc/errors", 4096), WritePointer("etc/errors_addr", "etc/errors", 0, 16, 8)]
    files[SCRIPT] = emit([*parse_script(files[SCRIPT]), *more])
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    undisturbed = BootingMachine(tmp_path / "a", files)
    undisturbed.boot(again=again)
    machine = BootingMachine(tmp_path / "b", files)
    frames: list[list[int]] = []

    def replayed() -> list[list[MicroOp]]:
        """What the next backend answers to all frames so far."""
        loader = machine.loader()
        return [loader.begin(again), *(loader.proceed(_frame(words)) for words in frames)]

    ops = machine.loader().begin(again)
    while ops:
        assert replayed()[-1] == ops
        machine.carry_out(ops)
        frames.append(machine.frame.tolist())
        ops = machine.loader().proceed(machine.frame)
    machine.entry = machine.loader().load(2 if again else 1)
    assert machine.entry == undisturbed.entry
    usable = machine.config.ram_size - machine.config.hidden_size
    assert bytes(machine.window.ram[:usable]) == bytes(undisturbed.window.ram[:usable])


def _frame(words: list[int]) -> memoryview:
    frame = memoryview(bytearray(8 * len(words))).cast("Q")
    for n, word in enumerate(words):
        frame[n] = word
    return frame


@pytest.mark.parametrize("name", ["etc/acpi/tables", "etc/acpi/rsdp", SCRIPT])
def test_missing_files_are_told(tmp_path: Path, name: str) -> None:
    files = machine_files()
    del files[name]
    with pytest.raises(GuestError, match=f"no file {name}.*acpi=off"):
        BootingMachine(tmp_path, files).boot()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (SCRIPT, b"x" * 127, "127 bytes are no whole number"),
        (SCRIPT, b"", "does not place etc/acpi/rsdp"),
        (SCRIPT, bytes(128 * 4000), "512000 bytes; 65536 were expected"),
        ("etc/acpi/tables", bytes(1 << 20), "1048576 bytes; 393216 were expected"),
        ("etc/acpi/tables", b"", "outside of 'etc/acpi/tables'"),
        ("etc/acpi/rsdp", bytes(36), "is no RSDP|outside"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(GuestError, match=message):
        BootingMachine(tmp_path, machine_files() | {name: data}).boot()


def test_any_damage_ends_in_an_error_that_is_ours_or_in_a_boot(tmp_path: Path) -> None:
    """Bytes of every file changed at random: hostile contents never crash or hang the backend."""
    machine = BootingMachine(tmp_path)
    good = machine_files()
    chance = random.Random(5)
    refused = 0
    for _ in range(300):
        name = chance.choice(sorted(good))
        data = bytearray(good[name])
        for _ in range(chance.choice([1, 1, 2, 8])):
            data[chance.randrange(len(data))] = chance.choice([0, 1, 0xFF, chance.randrange(256)])
        machine.device.files = good | {name: bytes(data)}
        try:
            machine.boot()
        except GuestError:
            refused += 1
    assert 50 < refused < 300
