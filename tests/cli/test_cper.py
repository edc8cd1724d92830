"""`qemu-sdei cper`: records from anywhere, in the form that is asked for."""

from __future__ import annotations

import base64
import json
from importlib import resources
from pathlib import Path

import pytest

from qemu_sdei.ras.block import block, parse_block
from qemu_sdei.ras.described import described
from qemu_sdei.ras.entry import entry
from qemu_sdei.ras.libcper import from_json
from qemu_sdei.ras.record import parse_record, record
from tests.cli.conftest import Command, RawCommand
from tests.ras.samples import SAMPLES

RECORD = record([entry(SAMPLES["memory"], "recoverable", fru_text="DIMM A1")], timestamp="2026-11-30T12:00:00Z")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "error.cper"
    path.write_bytes(RECORD.pack())
    return path


def test_decode_says_what_happened(command: Command, log: Path) -> None:
    done = command("cper", "decode", str(log))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Common Platform Error Record: recoverable, 1 section\n")
    assert '  FRU Text          "DIMM A1"\n' in done.stdout
    assert "    Memory Error Type      3 (Multi-bit ECC)\n" in done.stdout


def test_each_form_leads_back(command: Command, raw_command: RawCommand, log: Path, tmp_path: Path) -> None:
    forms = {option: command("cper", "decode", str(log), f"--{option}").stdout for option in ("json", "hex", "base64")}
    assert from_json(json.loads(forms["json"])) == RECORD
    assert bytes.fromhex(forms["hex"]) == RECORD.pack()
    assert base64.b64decode(forms["base64"]) == RECORD.pack()
    assert raw_command("cper", "decode", str(log), "--binary").stdout == RECORD.pack()
    for text in forms.values():
        again = command("cper", "decode", "-", "--hex", input=text)
        assert bytes.fromhex(again.stdout) == RECORD.pack()
    out = tmp_path / "out.json"
    assert command("cper", "decode", str(log), "--json", "-o", str(out)).stdout == ""
    assert from_json(json.loads(out.read_text())) == RECORD
    assert command("cper", "decode", str(log), "--json", "-o", str(out)).returncode == 2


def test_a_log_of_a_bmc_becomes_what_qemu_takes(command: Command, log: Path) -> None:
    done = command("cper", "decode", str(log), "--as", "block", "--base64")
    made = parse_block(base64.b64decode(done.stdout))
    assert made.entries[0].section == SAMPLES["memory"]
    assert "2026-11-30T12:00:00+00:00" in command("cper", "decode", "-", input=done.stdout).stdout
    back = command("cper", "decode", "-", "--as", "record", "--hex", input=done.stdout)
    assert parse_record(bytes.fromhex(back.stdout)).entries[0].section == SAMPLES["memory"]


def test_several_records(command: Command, log: Path) -> None:
    log.write_bytes(RECORD.pack() * 2)
    assert len(json.loads(command("cper", "decode", str(log), "--json").stdout)) == 2
    assert command("cper", "decode", str(log)).stdout.count("Common Platform Error Record") == 2
    assert len(command("cper", "decode", str(log), "--base64").stdout.splitlines()) == 2


def test_a_vendors_section_by_its_file(command: Command, log: Path, tmp_path: Path) -> None:
    shipped = resources.files("qemu_sdei") / "data/ras/example-sram.toml"
    path = tmp_path / "sram.toml"
    path.write_bytes(shipped.read_bytes())
    kind = described(shipped.read_bytes())
    log.write_bytes(block([entry(kind(address=0x1234))]).pack())
    assert "Unknown" in command("cper", "decode", str(log)).stdout
    assert "Address 0x1234" in command("cper", "decode", str(log), "--sections", str(path)).stdout
    path.write_text("[section]\n")
    done = command("cper", "decode", str(log), "--sections", str(path))
    assert done.returncode == 2
    assert done.stderr == f"qemu-sdei: error: {path}: section.name: it is missing\n"


def test_check_says_what_is_wrong(command: Command, log: Path) -> None:
    done = command("cper", "check", str(log))
    assert (done.returncode, done.stdout) == (0, "1 record: nothing is wrong\n")
    wrong = block([entry(SAMPLES["arm"])])
    log.write_bytes(wrong.head.replaced(block_status=0x22).pack() + wrong.pack()[20:])
    done = command("cper", "check", str(log))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "warning: sections[0].context_information[9].register_context_type: 77 has no meaning",
        "error: block_status: it counts 2 entries, and there are 1",
    ]
    said = json.loads(command("cper", "check", str(log), "--json").stdout)
    assert [each["level"] for each in said["faults"]] == ["warning", "error"]


def test_what_is_no_record_is_one_line(command: Command, log: Path) -> None:
    log.write_bytes(RECORD.pack()[:-1])
    done = command("cper", "decode", str(log))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"qemu-sdei: error: {log}: offset 0x14, record_length: it says 280 bytes, 279 are there\n"
    for text in ("", "hello\n", "{}"):
        done = command("cper", "decode", "-", input=text)
        assert done.returncode == 2
        assert done.stderr.startswith("qemu-sdei: error: standard input: ")
        assert len(done.stderr.splitlines()) == 1
    assert command("cper", "decode", "/nowhere").returncode == 2
    assert command("cper", "decode", str(log), "--json", "--hex").returncode == 2
