"""The files that QEMU offers its firmware, read from a machine that never runs."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from qemu_sdei.errors import LaunchError
from qemu_sdei.tables.fw_cfg_qtest import read_files

QEMU = shutil.which("qemu-system-aarch64")
NAMES = ("etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader")


def read(
    *names: str, qemu: str | None = QEMU, cpus: int = 2, size: int = 256 << 20, extra: list[str] | None = None
) -> Mapping[str, bytes]:
    if qemu is None:
        pytest.skip("no qemu-system-aarch64")
    return read_files(
        names, qemu=Path(qemu), nr_cpus=cpus, ram_size=size, cpu="cortex-a72", virtualization=False, extra=extra or []
    )


@pytest.mark.guest
def test_a_machines_tables_are_there_and_follow_its_options() -> None:
    small = read(*NAMES)
    assert small["etc/acpi/rsdp"].startswith(b"RSD PTR ")
    assert {b"FACP", b"DSDT", b"APIC", b"GTDT"} <= signatures(small["etc/acpi/tables"])
    assert len(small["etc/table-loader"]) % 128 == 0
    many = read(*NAMES, cpus=9, size=8 << 30)
    assert many["etc/acpi/tables"].count(struct.pack("<BBxx", 11, 80)) >= 9, "a GICC structure for each CPU"
    assert read(*NAMES) == small


def signatures(blob: bytes) -> set[bytes]:
    found, at = set(), 0
    while blob[at : at + 4].isalnum():
        found.add(blob[at : at + 4])
        at += int.from_bytes(blob[at + 4 : at + 8], "little")
    return found


@pytest.mark.guest
def test_what_is_not_there_is_said() -> None:
    with pytest.raises(LaunchError, match="no opt/nothing"):
        read("opt/nothing")
    assert read("opt/some", extra=["-fw_cfg", "name=opt/some,string=thing"]) == {"opt/some": b"thing"}


@pytest.mark.guest
def test_qemus_own_complaint_is_passed_on() -> None:
    with pytest.raises(LaunchError, match="nosuch"):
        read(*NAMES, extra=["-device", "nosuch"])


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("s.close(); sys.exit(3)", "ended with status 3"),
        ("s.sendall(b'FAIL\\n'); time.sleep(60)", "did not take 'write'"),
        ("s.sendall(b'OK\\n' * 3); time.sleep(60)", "cannot be understood"),
        ("s.sendall(b'OK 0x\\n' * 9); time.sleep(60)", "cannot be understood"),
        ("s.sendall(b'x' * 100); s.close(); time.sleep(60)", "reset by peer"),
        ("time.sleep(60)", "did not answer within 1 s"),
    ],
)
def test_a_program_that_is_no_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, what: str) -> None:
    program = tmp_path / "qemu"
    program.write_text(
        f"#!{sys.executable}\nimport re, socket, sys, time\n"
        "fd = int(re.search(r'id=qtest,fd=(\\d+)', ' '.join(sys.argv))[1])\n"
        f"s = socket.socket(fileno=fd)\ns.recv(64)\n{answer}\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr("qemu_sdei.tables.fw_cfg_qtest.TIMEOUT", 1.0)
    with pytest.raises(LaunchError, match=what):
        read(*NAMES, qemu=str(program))


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"cannot be started|could be read"):
        read(*NAMES, qemu=str(tmp_path / "nothing"))
