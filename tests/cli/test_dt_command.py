"""`qemu-sdei dt`: what it prints, what it merges into, and what it refuses."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_sdei.acpi.fdt import flatten, parse
from tests.acpi.trees import small_dtb
from tests.cli.conftest import Command


def test_the_nodes_alone(command: Command) -> None:
    result = command("dt", "--method", "hvc")
    assert result.returncode == 0
    assert result.stdout.startswith("/dts-v1/;\n/plugin/;\n")
    assert '"arm,sdei-1.0"' in result.stdout
    assert result.stdout.count('method = "hvc";') == 2
    assert "psci" not in command("dt", "--no-psci").stdout
    assert "sdei" not in command("dt", "--no-sdei").stdout
    assert "/plugin/" not in command("dt", "--format", "dts").stdout


def test_merged_into_a_blob(command: Command, tmp_path: Path) -> None:
    base, out = tmp_path / "base.dtb", tmp_path / "out.dtb"
    base.write_bytes(small_dtb(2))
    result = command("dt", "--dtb", str(base), "-o", str(out))
    assert (result.returncode, result.stdout) == (0, "")
    found = "PSCI at /psci by smc, SDEI at /firmware/sdei by smc, 2 CPUs"
    assert result.stderr == f"qemu-sdei: {base}: Linux finds {found}\n"
    merged = parse(out.read_bytes()).root
    assert merged.child("firmware") is not None
    again = command("dt", "--dtb", str(out), "-o", str(base), "--force")
    assert again.returncode == 0
    assert "already" in again.stderr
    assert base.read_bytes() == out.read_bytes()
    text = command("dt", "--dtb", str(out), "--format", "dts", "-q")
    assert (text.returncode, text.stderr) == (0, "")
    assert "cpu@1 {" in text.stdout


def test_a_fault_of_each_cpu_is_not_a_line_of_each(command: Command, tmp_path: Path) -> None:
    tree = parse(small_dtb(100))
    tree.root.ensure("psci").set_text("compatible", "arm,psci-1.0")
    tree.root.ensure("psci").set_text("method", "smc")
    base = tmp_path / "base.dtb"
    base.write_bytes(flatten(tree))
    result = command("dt", "--no-psci", "--dtb", str(base), "-o", str(tmp_path / "out.dtb"))
    assert result.returncode == 0
    found, *warnings = result.stderr.splitlines()
    assert found.endswith("100 CPUs")
    assert (len(warnings), warnings[-1]) == (11, f"qemu-sdei: warning: {base}: and 90 more of this kind")


def test_a_file_is_not_replaced_without_force(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out.dtso"
    out.write_text("mine")
    result = command("dt", "-o", str(out))
    assert result.returncode == 2
    assert "--force" in result.stderr
    assert out.read_text() == "mine"
    assert command("dt", "-o", str(out), "--force").returncode == 0
    assert out.read_text() == command("dt").stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out.dtso"]


def test_a_blob_is_not_written_to_a_terminal() -> None:
    master, slave = pty.openpty()
    try:
        words = [sys.executable, "-m", "qemu_sdei", "dt", "--format", "dtbo"]
        result = subprocess.run(words, stdout=slave, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert result.returncode == 2
        assert "terminal" in result.stderr
        assert "-o FILE" in result.stderr
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--dtb", "/nonexistent"], ["/nonexistent", "No such file"]),
        (["--dtb", "/"], ["/ cannot be read"]),
        (["--dtb", "/dev/zero"], ["not a regular file"]),
        (["--dtb", "{short}"], ["{short}", "cut short"]),
        (["--dtb", "{text}"], ["{text}", "dtc -I dts"]),
        (["--dtb", "{overlay}"], ["{overlay}", "overlay", "fdtoverlay"]),
        (["--dtb", "{whole}", "--smp", "2"], ["--smp"]),
        (["--format", "dtb"], ["--dtb FILE"]),
        (["--smp", "0"], ["1 to 512"]),
        (["--no-sdei", "--no-psci"], ["nothing to add"]),
        (["--method", "svc"], ["svc"]),
        (["-o", "/nonexistent/x"], ["/nonexistent/x", "cannot be written"]),
        (["-o", "/"], ["directory"]),
    ],
)
def test_bad_input_is_one_line(command: Command, tmp_path: Path, words: list[str], what: list[str]) -> None:
    files = {name: str(tmp_path / name) for name in ("short", "text", "whole", "overlay")}
    command("dt", "--format", "dtbo", "-o", files["overlay"])
    Path(files["whole"]).write_bytes(small_dtb(1))
    Path(files["short"]).write_bytes(small_dtb(1)[:-10])
    Path(files["text"]).write_text("/dts-v1/;\n/ { };\n")
    result = command("dt", *(word.format(**files) for word in words))
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    for text in what:
        assert text.format(**files) in result.stderr
