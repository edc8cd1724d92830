"""Which QEMU is used, and what doctor finds."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.guestbuild import PROGRAMS
from qemu_sdei.host import environment
from qemu_sdei.host.environment import check, find_qemu

OPTIONS = (
    "  gic-version=<string>  - x\n  memory-backend=<link<m>> - x\n  secure=<bool> - x\n  virtualization=<bool> - x\n"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "qemu-sdei"


def fake_qemu(tmp_path: Path, version: str = "QEMU emulator version 8.1.2 (Test)", options: str = OPTIONS) -> Path:
    """A program that answers as QEMU does, and counts how often it is asked."""
    path = tmp_path / "bin" / "qemu-system-aarch64"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"#!/bin/sh\necho x >>{tmp_path}/asked\ncase $1 in --version) cat <<'E'\n{version}\nE\n;;\n"
        f"*) cat <<'E'\n{options}\nE\n;; esac\n"
    )
    path.chmod(0o755)
    return path


def refusal(path: Path | None) -> str:
    with pytest.raises(UsageError) as error:
        find_qemu(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_machines_own_qemu_is_good_enough() -> None:
    qemu = find_qemu()
    assert qemu.path.name == "qemu-system-aarch64"
    assert qemu.version >= (6, 2, 0)


def test_qemu_is_asked_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = fake_qemu(tmp_path)
    for _ in range(3):
        assert find_qemu(path).version == (8, 1, 2)
    assert (tmp_path / "asked").read_text().count("x") == 3  # --version, the machine's options, and all machines
    fake_qemu(tmp_path, "QEMU emulator version 9.0.0")
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    assert find_qemu(path).version == (9, 0, 0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"key": 5}', '{"version": [], "options": []}'])
def test_a_damaged_cache_is_no_harm(tmp_path: Path, cache: Path, text: str) -> None:
    path = fake_qemu(tmp_path)
    find_qemu(path)
    key = json.loads((cache / "qemu.json").read_text())["key"]
    damaged = [text, json.dumps({"key": key, "version": "8", "options": []}), json.dumps({"key": key, "version": []})]
    for content in damaged:
        (cache / "qemu.json").write_text(content)
        assert find_qemu(path).version == (8, 1, 2)


def test_a_cache_that_cannot_be_written_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert find_qemu(fake_qemu(tmp_path)).version == (8, 1, 2)


def test_too_old_says_what_is_needed(tmp_path: Path) -> None:
    text = refusal(fake_qemu(tmp_path, "QEMU emulator version 5.2.0 (Debian 1:5.2)"))
    assert "5.2.0" in text
    assert "6.2 or newer is needed" in text


def test_missing_machine_options_are_named(tmp_path: Path) -> None:
    assert "no option 'secure'" in refusal(fake_qemu(tmp_path, options=OPTIONS.replace("secure", "other")))
    assert "no machine 'virt'" in refusal(fake_qemu(tmp_path, options="unsupported machine type"))


def test_what_is_no_qemu_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not say that it is a QEMU" in refusal(fake_qemu(tmp_path, "hello"))
    assert "does not exist" in refusal(tmp_path / "missing")
    assert "no program that can be run" in refusal(tmp_path)
    (tmp_path / "data").write_bytes(b"\x7fELF")
    assert "no program that can be run" in refusal(tmp_path / "data")
    (tmp_path / "data").chmod(0o755)
    assert "cannot be run" in refusal(tmp_path / "data")
    other = fake_qemu(tmp_path).rename(tmp_path / "qemu-system-x86_64")
    assert "another architecture" in refusal(other)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install qemu-system-arm" in refusal(None)
    assert "--qemu" in refusal(None)


def test_a_program_that_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_TIMEOUT", 0.2)
    path = tmp_path / "hangs"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o755)
    assert "did not end within" in refusal(path)


def test_a_name_without_a_slash_is_looked_for_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_qemu(tmp_path).rename(tmp_path / "bin" / "my-qemu")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert find_qemu(Path("my-qemu")).path == tmp_path / "bin" / "my-qemu"


def test_doctor_finds_all_that_is_needed_here() -> None:
    findings = {finding.name: finding for finding in check()}
    assert [finding for finding in findings.values() if not finding.ok] == []
    assert findings["embedded programs"].found == ", ".join(sorted(program.name for program in PROGRAMS))
    assert findings["Debian kernels"].found is None  # the cache is empty
    assert findings["Debian kernels"].ok


def test_doctor_says_what_is_missing_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("QEMU_SDEI_CROSS", "nonsense-")
    findings = {finding.name: finding for finding in check()}
    needed = [finding.name for finding in findings.values() if not finding.ok]
    assert needed == ["QEMU", "Debian kernels", "busybox for arm64"]
    assert "--kernel" in findings["Debian kernels"].remedy
    assert "apt-get install qemu-system-arm" in findings["QEMU"].remedy
    for name in ("apt-get", "dtc", "iasl", "cross compiler"):
        assert findings[name].found is None
        assert findings[name].remedy
