"""`qemu-sdei tables`: what it writes, read by the tools that it is for, and what it refuses."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_sdei.acpi.formats import acpidump
from qemu_sdei.acpi.hed import hed_table
from qemu_sdei.acpi.osc import osc_table
from qemu_sdei.acpi.parse import parse, split_file
from qemu_sdei.acpi.table import Oem
from qemu_sdei.acpi.tables import Agdi, Bert, Fadt, Ghes, GhesV2, Hest, Xsdt
from tests.acpi.blobs import table
from tests.boot.newc import entries
from tests.cli.conftest import Command, RawCommand

GHES = "ghes@0x7fd00000"
FADT = Fadt(flags=1 << 20, minor_version=3).to_bytes()


@pytest.fixture
def fadt(tmp_path: Path) -> str:
    path = tmp_path / "facp.aml"
    path.write_bytes(FADT)
    return str(path)


@pytest.fixture
def raw(raw_command: RawCommand) -> Callable[..., bytes]:
    """Standard output of `tables` as bytes; it succeeds."""

    def run(*words: str) -> bytes:
        result = raw_command("tables", *words)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_ours_without_any_machine(raw: Callable[..., bytes], fadt: str) -> None:
    tables = [
        parse(data) for data in split_file(raw("--format", "aml", "--ghes", GHES, "--fadt", fadt, "--method", "hvc"))
    ]
    assert [each.signature for each in tables] == ["SDEI", "HEST", "AGDI", "FACP"]
    _, hest, agdi, facp = tables
    assert isinstance(hest, Hest)
    assert isinstance(agdi, Agdi)
    assert isinstance(facp, Fadt)
    (source,) = hest.sources
    assert isinstance(source, GhesV2)
    assert (source.notification.type, source.notification.vector) == (11, 0x324)
    assert (source.error_status_address.address, source.read_ack.address) == (0x7FD0_0000, 0x7FD0_0008)
    assert (agdi.sdei_event, agdi.gsiv) == (0x325, 0)
    assert (facp.psci_compliant, facp.psci_use_hvc, facp.flags) == (True, True, 1 << 20)


def test_what_the_options_say_is_in_the_tables(raw: Callable[..., bytes]) -> None:
    words = ["--ghes", "0x324@0x1000,ack=none,size=8192", "--ghes", "shared-a@0x3000,ack=0x2000"]
    oem = ["--oem-id", "ACME", "--oem-table-id", "BOARD", "--oem-revision", "0x10"]
    tables = [parse(data) for data in split_file(raw("--format", "aml", *words, *oem, "--agdi-interrupt", "90"))]
    hest, agdi = tables[1:]
    assert isinstance(hest, Hest)
    assert isinstance(agdi, Agdi)
    first, second = hest.sources
    assert isinstance(first, Ghes)
    assert not isinstance(first, GhesV2)
    assert first.block_length == 8192
    assert isinstance(second, GhesV2)
    assert (second.error_status_address.address, second.read_ack.address) == (0x3000, 0x2000)
    assert (first.notification.vector, second.notification.vector) == (0x324, 0x200)
    assert (agdi.mode, agdi.gsiv, agdi.sdei_event) == (1, 90, 0)
    for each in tables:
        assert (each.oem.oem_id, each.oem.oem_table_id, each.oem.oem_revision) == (b"ACME  ", b"BOARD   ", 16)


def test_an_agdi_by_event_and_interrupt(raw: Callable[..., bytes]) -> None:
    """Mode 2 of DEN0093 1.2."""
    (agdi,) = [
        parse(data)
        for data in split_file(raw("--format", "aml", "--table", "agdi", "--agdi", "ghes", "--agdi-interrupt", "90"))
    ]
    assert isinstance(agdi, Agdi)
    assert (agdi.mode, agdi.sdei_event, agdi.gsiv) == (2, 0x324, 90)


def test_errors_of_the_boot_before_and_firmware_first(raw: Callable[..., bytes]) -> None:
    words = ["--bert", "0x7fd10000,size=8192", "--osc"]
    tables = [parse(data) for data in split_file(raw("--format", "aml", *words, "--table", "bert", "--table", "ssdt"))]
    bert, ssdt = tables
    assert isinstance(bert, Bert)
    assert (bert.region_address, bert.region_length) == (0x7FD1_0000, 8192)
    assert ssdt.to_bytes()[36:] == osc_table().to_bytes()[36:]
    assert [parse(data).signature for data in split_file(raw("--format", "aml", *words))] == [
        "SDEI", "AGDI", "BERT", "SSDT",
    ]  # fmt: skip
    assert b"ssdt.aml" in raw("--format", "cpio", *words), "Linux takes it from an initrd"


@pytest.mark.parametrize("form", ["aml", "acpidump", "hex", "c", "dsl", "edk2"])
def test_a_directory_has_a_file_per_table(command: Command, tmp_path: Path, form: str) -> None:
    if form == "dsl" and shutil.which("iasl") is None:
        pytest.skip("no iasl")
    out = tmp_path / "out"
    result = command("tables", "--ghes", GHES, "--format", form, "-o", f"{out}/")
    assert result.returncode == 0, result.stderr
    names = {
        "aml": {"sdei.aml", "hest.aml", "agdi.aml"},
        "acpidump": {"sdei.txt", "hest.txt", "agdi.txt"},
        "hex": {"sdei.hex", "hest.hex", "agdi.hex"},
        "c": {"acpi_tables.c"},
        "dsl": {"sdei.dsl", "hest.dsl", "agdi.dsl"},
        "edk2": {"Sdei.aslc", "Hest.aslc", "Agdi.aslc", "QemuSdeiAcpiTables.inf"},
    }
    assert {path.name for path in out.iterdir()} == names[form]
    assert f"{len(names[form])} file" in result.stderr
    # Where one is in the way, none is written: not even those that would come before it (AGDI's is the last table).
    last, *others = sorted(out.iterdir())
    for path in others:
        path.unlink()
    last.write_text("mine")
    again = command("tables", "--ghes", GHES, "--format", form, "-o", str(out))
    assert again.returncode == 2
    assert "--force" in again.stderr
    assert [path.read_text() for path in out.iterdir()] == ["mine"]
    assert command("tables", "--ghes", GHES, "--format", form, "-o", str(out), "--force").returncode == 0
    assert {path.name for path in out.iterdir()} == names[form]
    assert last.read_bytes() != b"mine"


def test_the_dump_has_the_same_tables(raw: Callable[..., bytes], command: Command, tmp_path: Path) -> None:
    text = command("tables", "--ghes", GHES, "--format", "acpidump").stdout
    assert [entry.data for entry in acpidump.read(text.encode())] == split_file(raw("--ghes", GHES, "--format", "aml"))


def test_an_override_for_the_initrd(tmp_path: Path, fadt: str, command: Command) -> None:
    out = tmp_path / "acpi.cpio"
    result = command("tables", "--format", "cpio", "--ghes", GHES, "--fadt", fadt, "-o", str(out))
    assert result.returncode == 0
    assert "left out: SDEI" in result.stderr
    files = {path: data for path, (_, data, _) in entries(out.read_bytes()).items() if data}
    assert set(files) == {f"kernel/firmware/acpi/{name}.aml" for name in ("hest", "agdi", "facp")}
    # Linux replaces a table by one with a higher OEM revision only.
    facp = Fadt.from_bytes(files["kernel/firmware/acpi/facp.aml"])
    assert facp.oem.oem_revision == Fadt.from_bytes(FADT).oem.oem_revision + 1
    assert sum(facp.to_bytes()) & 0xFF == 0
    if shutil.which("cpio"):
        listed = subprocess.run(["cpio", "-t"], input=out.read_bytes(), capture_output=True, check=True, timeout=30)
        assert b"kernel/firmware/acpi/hest.aml" in listed.stdout.splitlines()


def test_without_a_format_they_are_shown(command: Command) -> None:
    text = command("tables", "--table", "hest", "--ghes", GHES).stdout
    assert "Software Delegated Exception (SDEI)" in text
    assert "SDEI Event" not in text
    document = json.loads(command("tables", "--json", "--ghes", GHES).stdout)
    assert [each["signature"] for each in document["tables"]] == ["SDEI", "HEST", "AGDI"]
    assert all(each["fields"][0]["offset"] == 0 for each in document["tables"])


@pytest.mark.parametrize("form", ["aml", "cpio"])
def test_nothing_binary_goes_to_a_terminal(form: str) -> None:
    master, slave = pty.openpty()
    try:
        words = [sys.executable, "-m", "qemu_sdei", "tables", "--format", form, "--table", "agdi"]
        result = subprocess.run(words, stdout=slave, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert result.returncode == 2
        assert "terminal" in result.stderr
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--table mcfg", ["mcfg", "sdei"]),
        ("--format pdf", ["pdf", "acpidump"]),
        ("--ghes 0@0x1000", ["event 0", "Linux"]),
        ("--ghes software@0x1000", ["event 0"]),
        ("--ghes 0x7@0x1000", ["0x7", "not in the machine description", "0x324 (ghes)"]),
        ("--ghes nobody@0x1000", ["'nobody'", "--events"]),
        ("--ghes ghes", ["EVENT@ADDRESS"]),
        ("--ghes ghes@", ["not a number"]),
        ("--ghes ghes@here", ["'here'"]),
        ("--ghes ghes@0", ["0x0"]),
        ("--ghes ghes@0x1004", ["0x1004", "8 divides"]),
        ("--ghes ghes@0x10000000000000000", ["not a number"]),
        ("--ghes ghes@0xfffffffffffffff8", ["too large"]),
        ("--ghes ghes@0x1000,ack=0x1000", ["another address"]),
        ("--ghes ghes@0x1000,size=8", ["8 bytes is too small"]),
        ("--ghes ghes@0x1000,size=99999999", ["too large"]),
        ("--ghes ghes@0x1000,colour=red", ["colour=red", "ack=none"]),
        ("--ghes ghes@0x1000 --ghes ghes@0x2000", ["0x324", "already"]),
        ("--ghes ghes@0x1000 --agdi ghes", ["0x324", "already"]),
        ("--agdi 0x99", ["--agdi", "0x99"]),
        ("--ghes ghes@0x1000 --ghes private-a@0x1008", ["0x1008", "already", "sources[0].read_ack"]),
        ("--ghes ghes@0x1000 --ghes private-a@0x2000,ack=0x1000", ["0x1000", "already"]),
        ("--ghes ghes@0x1000 --ghes private-a@0x1000,ack=none", ["0x1000", "already"]),
        ("--agdi-interrupt many", ["'many'"]),
        ("--bert here", ["'here'"]),
        ("--bert 0", ["0x0", "8 divides"]),
        ("--bert 0x1000,size=20", ["20 bytes is too small"]),
        ("--bert 0x1000,length=64", ["length=64", "size=BYTES"]),
        ("--table bert", ["--bert ADDRESS"]),
        ("--table ssdt", ["--osc"]),
        ("--machine --bert 0x1000", ["0x1000", "leaves alone"]),
        ("--table hest", ["--ghes EVENT@ADDRESS"]),
        ("--table fadt", ["--fadt FILE"]),
        ("--fadt /nonexistent", ["/nonexistent", "No such file"]),
        ("--fadt {other}", ["{other}", "no FADT"]),
        ("--fadt {short}", ["FACP", "length"]),
        ("--fadt {wrong}", ["checksum"]),
        ("--fadt {old}", ["revision 4", "ACPI 5.1"]),
        ("--fadt {fadt} --machine", ["--fadt"]),
        ("--oem-id TOOLONG", ["'TOOLONG'", "1 to 6"]),
        ("--oem-table-id é", ["1 to 8"]),
        ("--oem-revision -1", ["--oem-revision"]),
        ("--events /nonexistent", ["/nonexistent"]),
        ("--table sdei --format cpio", ["no SDEI table", "initrd"]),
        ("--table fadt --format cpio --machine", ["--fadt FILE"]),
        ("--format edk2", ["-o DIR/"]),
        ("--format dsl -o {other}.dsl", ["-o DIR/"]),
        ("--format c -o {fadt}", ["{fadt}", "--force"]),
        ("--format c -o /nonexistent/a/b", ["cannot be written"]),
        ("--format c -o /dev/null/", ["/dev/null"]),
        ("--json --format c", ["--json"]),
        ("--smp 0", ["1 to 512"]),
        ("--smp many", ["'many'"]),
        ("--memory 1M", ["too small"]),
        ("--cpu z80", ["z80"]),
        ("--qemu /nonexistent", ["/nonexistent"]),
        ("--machine --ghes ghes@0x1000", ["0x1000", "leaves alone"]),
        ("--machine --ghes ghes@0x7fdffff8", ["0x7fe00000", "leaves alone"]),
        ("show", ["FILE"]),
        ("frob", ["frob"]),
    ],
)
def test_bad_input_is_one_line(command: Command, tmp_path: Path, words: str, what: list[str]) -> None:
    files = {
        "fadt": FADT,
        "other": table(b"MCFG", bytes(24)),
        "short": FADT[:200],
        "wrong": FADT[:9] + bytes([FADT[9] ^ 1]) + FADT[10:],
        "old": Fadt(revision=4, size=244).to_bytes(),
    }
    paths = {}
    for name, data in files.items():
        paths[name] = str(tmp_path / name)
        Path(paths[name]).write_bytes(data)
    result = command("tables", *words.format(**paths).split())
    assert result.returncode == 2, result.stdout
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for text in what:
        assert text.format(**paths) in result.stderr
    assert Path(paths["fadt"]).read_bytes() == FADT


DESCRIBED = """
[[event]]
number = 0
name = "software"
signalable = true

[[event]]
number = 7
name = "e7"

[[source]]
name = "all"
event = 7
type = "ghes"
id = 9
block = 8192
raw = 12
records = 3
sections = 4
enabled = false

[[source]]
name = "slow"
notify = "polled"
poll = 250

[[source]]
name = "abort"
notify = "sea"

[[source]]
name = "line"
notify = "interrupt"
interrupt = 100

[[source]]
name = "bare"
notify = "external"
interrupt = 101
"""


def test_sources_that_the_events_file_describes(raw: Callable[..., bytes], tmp_path: Path) -> None:
    """By name, or the event's; each has its own addresses, and what the file says of it."""
    events = tmp_path / "events.toml"
    events.write_text(DESCRIBED)
    names = ("e7", "slow", "abort", "line", "bare")
    words = [word for n, name in enumerate(names) for word in ("--ghes", f"{name}@{0x7FD0_0000 + n * 0x1000:#x}")]
    sdei, data, ssdt = split_file(raw("--events", str(events), "--format", "aml", *words))
    assert (sdei[:4], ssdt) == (b"SDEI", hed_table([100], Oem()).to_bytes())
    hest = parse(data)
    assert isinstance(hest, Hest)
    kinds = [source for source in hest.sources if isinstance(source, Ghes)]
    assert [(source.source_id, source.notification.type) for source in kinds] == [
        (9, 11),
        (0, 0),
        (1, 8),
        (2, 10),
        (3, 1),
    ]
    every, slow, _, line, bare = kinds
    assert (type(every), every.notification.vector, every.enabled) == (Ghes, 7, 0)
    assert (every.block_length, every.max_raw_length, every.records, every.max_sections) == (8192, 12, 3, 4)
    assert (slow.notification.poll_interval, line.notification.vector, bare.notification.vector) == (250, 100, 101)
    assert isinstance(slow, GhesV2)
    assert (slow.block_length, slow.max_raw_length, slow.enabled) == (4096, 4096, 1)


def test_without_iasl_it_is_said_what_to_install(command: Command) -> None:
    for words in (["--format", "dsl"], ["check", "--iasl", "/dev/null"]):
        result = command("tables", *words, env={"PATH": "/nonexistent"})
        assert result.returncode == 2
        assert result.stdout == ""
        assert "install acpica-tools" in result.stderr
    result = command("tables", "check", "--fwts", "-", env={"PATH": "/nonexistent"}, input="SDEI @ 0x0\n  0000: 00\n")
    assert result.returncode == 2
    assert "install fwts" in result.stderr


@pytest.mark.guest
@pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64")
def test_the_set_of_a_machine(command: Command, tmp_path: Path) -> None:
    result = command("tables", "--smp", "5", "--memory", "512M", "--format", "acpidump", "--method", "hvc")
    assert result.returncode == 0, result.stderr
    found = acpidump.read(result.stdout.encode())
    by_name = {entry.name: entry for entry in found}
    assert {"RSDP", "XSDT", "FACP", "APIC", "DSDT", "SDEI", "HEST", "AGDI"} <= set(by_name)
    xsdt = Xsdt.from_bytes(by_name["XSDT"].data)
    assert [entry.address for entry in found[2:-1]] == list(xsdt.entries)
    assert int.from_bytes(by_name["RSDP"].data[24:32], "little") == by_name["XSDT"].address
    facp = Fadt.from_bytes(by_name["FACP"].data)
    assert (facp.psci_compliant, facp.psci_use_hvc) == (True, True)
    assert facp.x_dsdt == by_name["DSDT"].address
    # All of it lies in memory that the machine has, and is right by our own rules.
    assert all(0x4000_0000 <= entry.address < 0x4000_0000 + (512 << 20) for entry in found)
    checked = command("tables", "check", "-", input=result.stdout)
    assert (checked.returncode, checked.stdout.split(":")[0]) == (0, f"no faults in {len(found)} tables")
    one = command("tables", "--smp", "5", "--memory", "512M", "--table", "hest", "--format", "hex")
    assert bytes.fromhex(one.stdout) == by_name["HEST"].data


@pytest.mark.guest
@pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64")
def test_qemus_own_error_sources_stay(command: Command) -> None:
    """With `ras=on` QEMU has a HEST of its own, and files beside its tables: there can be one HEST only."""
    words = ["--qemu-arg=-machine ras=on", "--table", "hest", "--format", "hex"]
    hest = Hest.from_bytes(bytes.fromhex(command("tables", *words).stdout))
    notifications = [source.notification.type for source in hest.sources if isinstance(source, Ghes)]
    assert notifications[-1] == 11
    assert len(notifications) > 1
    assert len({source.source_id for source in hest.sources}) == len(hest.sources)
