"""`qemu-sdei tables check`, `show` and `diff`, on tables whole and damaged."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

import pytest

from qemu_sdei.acpi.formats import acpidump, dsl
from qemu_sdei.acpi.iasl import Iasl
from qemu_sdei.acpi.own import GhesSource, own_tables
from qemu_sdei.acpi.tables import Agdi, Fadt
from tests.acpi.blobs import SDEI, SSDT, table
from tests.cli.conftest import Command

TABLES = [each.to_bytes() for each in own_tables(ghes=[GhesSource(0x324, 0x1000, 4096, 0x1008)], agdi_event=0x325)]
HEST, AGDI = TABLES[1:]


def changed(data: bytes, at: int, value: int) -> bytes:
    """`data` with another byte, and a checksum that is right all the same."""
    out = bytearray(data)
    out[at] = value
    out[9] = 0
    out[9] = -sum(out) & 0xFF
    return bytes(out)


def faults(command: Command, *words: str, input: str = "") -> tuple[int, list[dict[str, object]]]:
    result = command("tables", "check", "--json", *words, input=input)
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["ok"] == (result.returncode == 0)
    return result.returncode, document["faults"]


def test_good_tables_from_anywhere(command: Command, tmp_path: Path) -> None:
    (tmp_path / "one.aml").write_bytes(HEST)
    (tmp_path / "many.bin").write_bytes(b"".join(TABLES) + bytes(100))
    dump = acpidump.write(acpidump.Entry(data, 0x1000) for data in TABLES)
    (tmp_path / "dump.txt").write_text("Hello,\n" + dump + "\nbye\n")
    result = command("tables", "check", *(str(tmp_path / name) for name in ("one.aml", "many.bin", "dump.txt")))
    assert result.returncode == 0
    assert result.stdout == "no faults in 7 tables: HEST (3), SDEI (2), AGDI (2)\n"
    assert command("tables", "check", "-", input=dump).returncode == 0


def test_every_fault_is_listed(command: Command, tmp_path: Path) -> None:
    wrong_event = changed(changed(HEST, 0x50, 0), 0x51, 0)
    wrong_sum = SDEI[:9] + bytes([SDEI[9] ^ 1]) + SDEI[10:]
    lying = changed(AGDI, 4, 200)
    path = tmp_path / "bad.bin"
    path.write_bytes(wrong_event + wrong_sum + lying)
    code, found = faults(command, str(path))
    assert code == 1
    places = {(fault["table"], fault["offset"], fault["severity"]) for fault in found}
    assert {("HEST", 0x50, "error"), ("SDEI", 9, "error"), ("AGDI", 4, "error")} <= places
    assert all(fault["file"] == str(path) and fault["message"] for fault in found)
    text = command("tables", "check", str(path)).stdout
    assert "sources[0].notification.vector" in text
    assert "3 tables: HEST, SDEI, AGDI" in text


def test_what_follows_a_fault_in_the_file_is_said(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(SDEI + b"\xff\xfe rubbish")
    code, found = faults(command, str(path))
    assert code == 1
    assert [(fault["table"], fault["offset"]) for fault in found] == [(None, 36)]
    assert "SDEI" in command("tables", "check", str(path)).stdout
    result = command("tables", "show", str(path))
    assert (result.returncode, "SDEI: 36 bytes" in result.stdout) == (1, True)
    assert "offset 0x24" in result.stderr


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\0" * 100, b"SDEI", SDEI[:20], b"\x7fELF" + bytes(60)])
def test_no_table_at_all(command: Command, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    code, found = faults(command, str(path))
    assert (code, bool(found)) == (1, True)
    for words in (["show", str(path)], ["diff", str(path), str(path)]):
        result = command("tables", *words)
        assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)


def test_a_file_that_is_no_table_is_one_line(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("klog            line one\nline two of a kernel log\n")
    result = command("tables", "check", str(path))
    assert (result.returncode, result.stdout) == (1, f"{path}: not an ACPI table: text without an acpidump in it\n")
    path.write_text("[    0.000000] Booting Linux on physical CPU 0\n")
    for words in (["show", str(path)], ["diff", str(path), str(path)]):
        result = command("tables", *words)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"qemu-sdei: error: {path}: not an ACPI table: a kernel log\n"


def test_an_odd_table_does_not_hide_the_rest(command: Command, tmp_path: Path) -> None:
    """An old acpidump's FACS, a table that is cut short, rows that do not follow each other."""
    facs = b"FACS" + (64).to_bytes(4, "little") + bytes(72)
    path = tmp_path / "dump"
    path.write_text(acpidump.write(acpidump.Entry(data) for data in (facs, HEST[:-1], AGDI)))
    result = command("tables", "show", str(path))
    assert result.returncode == 1
    assert [line for line in result.stdout.splitlines() if "bytes (" in line] == [
        f"FACS: 80 bytes ({path})", f"HEST: 131 bytes ({path})", f"AGDI: 48 bytes ({path})",
    ]  # fmt: skip
    assert "cannot be read: HEST (offset 0x4, length)" in result.stdout
    assert "0x074   " in result.stdout, "the last row of the table's bytes"
    document = json.loads(command("tables", "show", "--json", str(path)).stdout)
    assert [bool(each["unreadable"]) for each in document["tables"]] == [False, True, False]
    assert command("tables", "diff", str(path), str(path)).returncode == 0
    other = tmp_path / "other"
    other.write_text(acpidump.write(acpidump.Entry(data) for data in (facs, HEST, changed(AGDI, 0x28, 1))))
    rows = json.loads(command("tables", "diff", "--json", str(path), str(other)).stdout)["differences"]
    assert {row["table"] for row in rows} == {"HEST", "AGDI"}
    code, found = faults(command, str(path))
    assert code == 1
    assert ("FACS", "warning") in {(fault["table"], fault["severity"]) for fault in found}
    broken = path.read_text().replace("  0020:", "  0030:", 1)
    path.write_text(broken)
    result = command("tables", "show", str(path))
    assert (result.returncode, "AGDI: 48 bytes" in result.stdout) == (1, True)
    assert "line 4 of the dump" in result.stderr


def test_what_does_not_go_together_is_found(command: Command, tmp_path: Path) -> None:
    """Of files with one table each; files of several are of a machine each."""
    fadt = Fadt(flags=1 << 20, minor_version=3, arm_boot_arch=3, x_dsdt=8).to_bytes()
    for name, data in {"sdei": SDEI, "hest": HEST, "agdi": AGDI, "fadt": fadt}.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "both").write_bytes(HEST + changed(AGDI, 0x28, 0x24))
    sdei, hest, agdi, facp, both = (str(tmp_path / name) for name in ("sdei", "hest", "agdi", "fadt", "both"))
    assert faults(command, sdei, hest, agdi, facp) == (0, [])
    assert faults(command, hest, facp)[0] == 1
    code, found = faults(command, hest, hest)
    errors = [(fault["table"], fault["field"]) for fault in found if fault["severity"] == "error"]
    assert (code, errors) == (1, [("HEST", "signature")])
    assert faults(command, hest, hest, "--separate") == (0, [])
    code, found = faults(command, both)
    assert [(fault["table"], fault["field"]) for fault in found if fault["severity"] == "error"] == [
        ("AGDI", "sdei_event")
    ]
    assert faults(command, sdei, facp, "--method", "hvc") == (0, [])
    code, found = faults(command, sdei, facp, "--method", "smc")
    assert (code, found[0]["field"], found[0]["offset"]) == (1, "arm_boot_arch", 129)


def test_a_directory_is_a_machine(command: Command, tmp_path: Path) -> None:
    """Such as a copy of /sys/firmware/acpi/tables."""
    place = tmp_path / "tables"
    (place / "dynamic").mkdir(parents=True)
    for name, data in {"SDEI": SDEI, "HEST": HEST, "AGDI": AGDI, "README": b"a text about these tables\n"}.items():
        (place / name).write_bytes(data)
    result = command("tables", "check", str(place))
    assert (result.returncode, result.stdout) == (0, "no faults in 3 tables: AGDI, HEST, SDEI\n")
    assert command("tables", "show", str(place)).stdout.count("bytes (") == 3
    assert command("tables", "diff", str(place), str(place)).returncode == 0
    (place / "AGDI2").write_bytes(AGDI[:30])
    with (place / "disk.img").open("wb") as file:
        file.truncate(1 << 30)  # no table is as large: it is not read
    code, found = faults(command, str(place))
    assert (code, [Path(str(fault["file"])).name for fault in found]) == (1, ["AGDI2"]), (
        "a damaged one is not passed over"
    )
    result = command("tables", "show", str(place))
    assert (result.returncode, result.stdout.count("bytes (")) == (1, 3)
    assert "AGDI2" in result.stderr
    (place / "AGDI2").unlink()
    (place / "HEST2").write_bytes(HEST)
    assert faults(command, str(place))[0] == 1
    assert "no file with ACPI tables" in command("tables", "check", str(place / "dynamic")).stderr


@pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl")
def test_a_source_for_iasl_is_compiled(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "agdi.dsl"
    path.write_text(dsl.agdi(Agdi.by_both(0x325, 90)))
    result = command("tables", "check", str(path))
    assert result.returncode == 0
    assert "source, compiled by iasl" in result.stdout
    assert result.stdout.endswith("no faults, 1 note in 1 table: AGDI\n")
    # Not if it would have iasl read what else is on this machine.
    path.write_text('#include "/etc/passwd"\n' + path.read_text())
    result = command("tables", "check", str(path))
    assert (result.returncode, result.stdout) == (
        1,
        f"{path}: not an ACPI table: source of a table: iasl compiles it\n",
    )
    path.write_text(dsl.agdi(Agdi.by_both(0x325, 90)).replace("Gsiv", "Gisv").replace("UINT32", "UINT33"))
    result = command("tables", "check", str(path))
    assert (result.returncode, len(result.stdout.splitlines())) == (1, 1)
    assert "iasl does not compile" in result.stdout


def test_a_fadt_among_odd_things_is_taken(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "dump"
    fadt = Fadt(flags=1 << 20, minor_version=3, x_dsdt=8).to_bytes()
    path.write_bytes(HEST[:-1] + b"rubbish" + fadt)
    result = command("tables", "--format", "hex", "--table", "fadt", "--fadt", str(path))
    assert (result.returncode, result.stderr) == (0, "")
    assert Fadt.from_bytes(bytes.fromhex(result.stdout)).psci_compliant


def test_warnings_are_no_errors(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(changed(AGDI, 0x25, 1))  # a reserved byte
    code, found = faults(command, str(path))
    assert (code, {fault["severity"] for fault in found}) == (0, {"warning"})


@pytest.mark.parametrize("action", ["check", "show", "diff"])
def test_a_path_that_cannot_be(command: Command, action: str) -> None:
    for path, what in (("~nobody-at-all/x", "there is no user"), ("x" * 300, "too long")):
        result = command("tables", action, *[path] * (2 if action == "diff" else 1))
        assert (result.returncode, result.stdout) == (2, "")
        assert what in result.stderr


def test_a_file_that_cannot_be_read(command: Command) -> None:
    for words in (["check", "/nonexistent"], ["check", "/"], ["check", "-", "-"], ["diff", "-", "-"]):
        result = command("tables", *words)
        assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)


@pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl")
def test_a_listing_that_iasl_does_not_compile_is_no_fault_of_the_table(command: Command, tmp_path: Path) -> None:
    """A CSRT as those of Windows laptops: iasl cannot read what it prints of it."""
    resource = struct.pack("<IHHI", 20, 1, 0, 0) + bytes(8)
    group = struct.pack("<IIIHHHHI", 24 + len(resource), 0x454D4341, 0, 2, 0, 0, 0, 0) + resource
    path = tmp_path / "csrt"
    path.write_bytes(table(b"CSRT", group + group, revision=0))
    code, found = faults(command, "--iasl", "-q", str(path))
    assert code == 0
    assert {(fault["by"], fault["severity"]) for fault in found} <= {("iasl", "note")}
    if found:
        assert str(Iasl().version()) in str(found[0]["message"])
        assert "1 note in 1 table" in command("tables", "check", "--iasl", str(path)).stdout


@pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl")
def test_iasls_opinion_is_told_from_ours(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"".join(TABLES) + SSDT)
    result = command("tables", "check", "--iasl", "--json", "-q", str(path))
    assert result.returncode == 0
    found = json.loads(result.stdout)["faults"]
    # Old releases do not know AGDI, and that is all that there is.
    assert [(fault["by"], fault["table"], fault["severity"]) for fault in found] in ([], [("iasl", "AGDI", "note")])
    path.write_bytes(SDEI[:9] + bytes([SDEI[9] ^ 1]) + SDEI[10:])
    result = command("tables", "check", "--iasl", "--json", "-q", str(path))
    assert {fault["by"] for fault in json.loads(result.stdout)["faults"]} == {"qemu-sdei", "iasl"}


def test_which_of_fwts_tests_ran_is_said(command: Command, tmp_path: Path) -> None:
    """And what is known to be a false alarm of its is a note."""
    records = [
        {
            "log_text": "WARNING: Test 1, ACPI Table SDEI is empty and just contains a table header.",
            "status": "WARNING",
        },
        {"log_text": "WARNING: Test 1, odd", "status": "WARNING"},
    ]
    (tmp_path / "log").write_text(json.dumps({"fwts": [{"tests": [{"test": records}]}]}))
    program = tmp_path / "fwts"
    program.write_text(
        f"#!/bin/sh\ncase \"$*\" in --show-tests) printf 'Batch tests:\\n sdei  x\\n hest  x\\n'; exit ;; esac\n"
        f"cp {tmp_path}/log results.json\nexit 1\n"
    )
    program.chmod(0o755)
    (tmp_path / "set").write_bytes(b"".join(TABLES))
    words = ("tables", "check", "--fwts", "-q", str(tmp_path / "set"))
    result = command(*words[:3], str(tmp_path / "set"), env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert result.returncode == 0
    assert "1 warning, 1 note in 3 tables" in result.stdout
    assert "fwts' tests that ran: hest, sdei; this fwts does not have acpitables, checksum, rsdp, " in result.stdout
    document = json.loads(command(*words, "--json", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}).stdout)
    assert document["fwts"]["ran"] == ["hest", "sdei"]
    assert [(fault["severity"], fault["by"]) for fault in document["faults"]] == [("note", "fwts"), ("warning", "fwts")]


def test_shown_field_by_field(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(HEST + table(b"ABCD", bytes(range(64))))
    text = command("tables", "show", str(path)).stdout
    assert "Source 0: Notify: Vector" in text
    assert "0x324" in text
    assert "ABCD: 100 bytes" in text
    document = json.loads(command("tables", "show", "--json", str(path)).stdout)
    vector = next(each for each in document["tables"][0]["fields"] if each["name"].endswith("vector"))
    assert (vector["offset"], vector["size"], vector["value"]) == (0x50, 4, 0x324)


def test_differences_field_by_field(command: Command, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    big = bytearray(200)
    big[150] = 7
    first.write_bytes(HEST + SDEI + table(b"ABCD", bytes(200)))
    second.write_bytes(changed(HEST, 0x50, 0x99) + AGDI + table(b"ABCD", bytes(big)))
    result = command("tables", "diff", "--json", str(first), str(second))
    assert result.returncode == 1
    rows = {
        (row["table"], row["offset"], row["first"], row["second"]) for row in json.loads(result.stdout)["differences"]
    }
    assert ("HEST", "0x50", "0x00000324", "0x00000399") in rows
    assert ("SDEI", "", "there", "missing") in rows
    assert ("AGDI", "", "missing", "there") in rows
    assert any(row[0] == "ABCD" and row[1] == hex(36 + 150) for row in rows)
    text = command("tables", "diff", str(first), str(second)).stdout
    assert "Source 0: Notify: Vector" in text
    same = command("tables", "diff", str(first), str(first))
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "no differences\n")
    assert json.loads(command("tables", "diff", "--json", str(first), str(first)).stdout) == {
        "same": True,
        "differences": [],
    }
