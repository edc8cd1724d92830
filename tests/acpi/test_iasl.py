"""The wrapper of iasl: what it makes of the real program, and of programs that misbehave."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from qemu_sdei.acpi.iasl import Difference, Iasl, MissingToolError, Severity, ToolError, differences
from tests.acpi.blobs import AGDI, SDEI, SSDT, table

needs_iasl = pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made; what is in it at the end was left behind."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


def fake(tmp_path: Path, script: str, timeout: float = 30) -> Iasl:
    program = tmp_path / "iasl"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    return Iasl(program, timeout=timeout)


@needs_iasl
def test_its_version_is_a_date() -> None:
    assert 20100101 < Iasl().version() < 21000101


@needs_iasl
@pytest.mark.parametrize("table", [SDEI, SSDT], ids=["SDEI", "SSDT"])
def test_there_and_back(table: bytes, place: Path) -> None:
    source = Iasl().disassemble(table)
    assert source.known
    assert source.complaints == ()
    compiled = Iasl().compile(source.text)
    assert compiled.of(Severity.ERROR) == ()
    assert compiled.data is not None
    assert differences(table, compiled.data) == []
    assert compiled.data[28:32] == b"INTL", "the compiler writes its own creator id: the comparison must leave it out"
    assert list(place.iterdir()) == []


@needs_iasl
def test_the_same_table_gives_the_same_text() -> None:
    assert Iasl().disassemble(SDEI) == Iasl().disassemble(SDEI)


@needs_iasl
def test_a_table_that_it_does_not_know_is_said() -> None:
    source = Iasl().disassemble(AGDI)
    if source.known:
        pytest.skip("this iasl knows AGDI")
    with pytest.raises(ToolError, match="AGDI"):
        Iasl().compile(source.text)


@needs_iasl
def test_a_wrong_checksum_is_remarked() -> None:
    (complaint,) = Iasl().disassemble(SDEI[:9] + b"\0" + SDEI[10:]).complaints
    assert "checksum" in complaint


LIARS = [SDEI[:4] + size.to_bytes(4, "little") + SDEI[8:] for size in (0, 1, 35, 37, 0xFFFF_FFFF)]
"""On the first iasl would print lines for ever."""


@needs_iasl
@pytest.mark.parametrize(
    "data", [b"", b"SDEI", b"\0" * 64, SDEI[:30], os.urandom(300), table(b"\0\1\2\3", bytes(64)), *LIARS]
)
def test_what_is_no_table(data: bytes, place: Path) -> None:
    with pytest.raises(ToolError, match="iasl"):
        Iasl().disassemble(data)
    assert list(place.iterdir()) == []


@needs_iasl
def test_messages_have_severity_code_and_line() -> None:
    source = """DefinitionBlock ("", "SSDT", 2, "A", "B", 1)
{
    Method (FOO, 1) { Local0 = 1 }
    Device (DEV0) { Name (_HID, "PNP0") }
}
"""
    result = Iasl().compile(source)
    assert result.data is None
    (error,) = result.of(Severity.ERROR)
    assert (error.line, error.code) == (4, 6033)
    assert "PNP0" in error.text
    (warning,) = result.of(Severity.WARNING)
    assert warning.line == 3
    (remark,) = result.of(Severity.REMARK)
    assert (remark.line, "Arg0" in remark.text) == (3, True)


@needs_iasl
def test_warnings_do_not_keep_a_table_back() -> None:
    result = Iasl().compile('DefinitionBlock ("", "SSDT", 2, "A", "B", 1) { Method (FOO, 0) { Local0 = 1 } }')
    assert result.data is not None
    assert [message.severity for message in result.messages] == [Severity.WARNING]


def test_a_missing_program_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingToolError, match="install acpica-tools"):
        Iasl()
    with pytest.raises(MissingToolError, match="/nonexistent/iasl"):
        Iasl("/nonexistent/iasl")


def test_a_program_that_does_not_end(tmp_path: Path, place: Path) -> None:
    pid = tmp_path / "pid"
    iasl = fake(tmp_path, f"sleep 600 & echo $! >{pid}; wait", timeout=2)
    with pytest.raises(ToolError, match="did not end within 2 s"):
        iasl.disassemble(SDEI)
    # Its child is gone too (or waits for init to collect it).
    deadline = time.monotonic() + 5
    status = Path(f"/proc/{pid.read_text().strip()}/stat")
    while status.exists() and status.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "the program's child still runs"
        time.sleep(0.01)
    assert list(place.iterdir()) == []


def test_a_program_that_does_not_stop_talking(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qemu_sdei.acpi.tool.MAX_OUTPUT", 1 << 20)
    with pytest.raises(ToolError, match="said more than 1 MiB"):
        fake(tmp_path, "exec yes").disassemble(SDEI)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "what"),
    [("kill -SEGV $$", "SIGSEGV"), ("exit 3", "said nothing"), ("echo out of memory; exit 3", "out of memory")],
)
def test_a_program_that_fails(tmp_path: Path, place: Path, script: str, what: str) -> None:
    iasl = fake(tmp_path, script)
    with pytest.raises(ToolError, match=what):
        iasl.disassemble(SDEI)
    with pytest.raises(ToolError, match=what):
        iasl.compile("")
    with pytest.raises(ToolError):
        iasl.version()
    assert list(place.iterdir()) == []


def test_differences_name_the_byte() -> None:
    other = bytearray(AGDI)
    other[9] ^= 1  # the checksum: in the header
    other[40] ^= 0xFF
    assert differences(AGDI, bytes(other)) == [Difference(40, 1, 0xFE)]
    assert differences(AGDI, AGDI[:-1]) == [Difference(47, 0, None)]
    assert len(differences(AGDI, bytes(other), start=0)) == 2
