"""Bad input: one line that says what is wrong and what to do, exit code 2, nothing left behind."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.cli.hold import hold_of
from qemu_sdei.errors import UsageError
from tests.cli.conftest import Command

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64")


def check_refused(result: subprocess.CompletedProcess[str], runtime: Path, *what: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("qemu-sdei: starting")]
    assert len(lines) == 1, result.stderr
    for text in what:
        assert text in lines[0]
    base = runtime / "qemu-sdei"
    assert not base.exists() or [path.name for path in base.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("run --kernel /bin/sh -- true", ["arm64 Image"]),
        ("run --kernel /nonexistent -- true", ["/nonexistent", "no such file"]),
        ("run --kernel / -- true", ["/ has no kernel in it: give an arm64 Image"]),
        ("run --initrd /nonexistent", ["/nonexistent", "no such file"]),
        ("run --memory 16M -- true", ["too small", "64M"]),
        ("run --memory 300G -- true", ["too much", "255G"]),
        ("run --memory lots -- true", ["'lots'", "512M"]),
        ("run --smp 0 -- true", ["give 1 to 512"]),
        ("run --smp 1000 -- true", ["give 1 to 512"]),
        ("run --smp two -- true", ["--smp", "'two'"]),
        ("run --smp 6,sockets=2,cores=2 -- true", ["makes 4 vCPUs, not 6"]),
        ("run --smp 2,cores=2,maxcpus=4 -- true", ["maxcpus=4", "6,sockets=2,cores=3"]),
        ("run --smp 2,cores=2,cores=1 -- true", ["cores=1", "6,sockets=2,cores=3"]),
        ("run --cpu cortex-a77x -- true", ["cortex-a77x", "nearest", "cortex-a7"]),
        ("run --cpu cortex-a15 -- true", ["32-bit", "cortex-a72"]),
        ("run --name a/b -- true", ["'a/b'"]),
        ("run --qemu /nonexistent -- true", ["/nonexistent"]),
        ("run --qemu /bin/true -- true", ["/bin/true", "QEMU"]),
        ("run --memory-path /nonexistent -- true", ["/nonexistent"]),
        ("run --service /nonexistent -- true", ["service /nonexistent"]),
        ("run --events /nonexistent -- true", ["/nonexistent"]),
        ("run --script /nonexistent", ["/nonexistent"]),
        ("run --script /", ["script / cannot be read"]),
        ("run --trace /nonexistent/trace -- true", ["trace /nonexistent/trace", "no directory /nonexistent"]),
        ("run --trace / -- true", ["trace / cannot be written", "directory"]),
        ("run --json", ["--json", "command"]),
        ("run --ras --dt -- true", ["ACPI", "--dt", "--ras"]),
        ("run --ras --dt --dry-run", ["ACPI", "--dt", "--ras"]),
        ("run --ras --no-sdei -- true", ["--no-sdei", "--ras"]),
        ("run --acpi --kernel builtin:selftest", ["builtin:selftest", "ACPI"]),
        ("run --timeout 3", ["--timeout", "command"]),
        ("run --timeout 0 -- true", ["--timeout"]),
        ("run --boot-timeout 0 -- true", ["--boot-timeout"]),
        ("run --sdei-version new --kernel builtin:selftest", ["MAJOR.MINOR"]),
        ("run --", ["no command"]),
        ("run --dry-run --smp 0", ["give 1 to 512"]),
        ("run --unknown", ["--unknown", "qemu-sdei run --help"]),
        ("run uname -a", ["unrecognized arguments: uname -a", "-- uname -a"]),
        ("selftest --cpu z80", ["z80"]),
        ("selftest --events /bin/sh", ["/bin/sh"]),
        ("selftest --service /bin/sh", ["service file /bin/sh"]),
        ("inject nobody --vcpu 0 --event 0", ["nobody", "none is running"]),
        ("inject nobody --vcpu -1 --event 0", ["counted from 0"]),
        ("inject nobody --vcpu 0 --event 0 --count 0", ["--count 0"]),
        ("inject nobody --vcpu 0 --event 0 --rate 0", ["--rate"]),
        ("inject nobody --vcpu 0 --event 0 --timeout nan", ["--timeout"]),
        ("inject nobody --vcpu 0 --event 0 --histogram", ["--histogram", "--wait"]),
        ("inject nobody --event 0", ["nobody"]),
        ("status nobody", ["nobody"]),
        ("migrate nobody", ["nobody", "none is running"]),
        ("migrate nobody a/b", ["'a/b'"]),
        ("migrate nobody --postcopy --route shared", ["leave out --route shared"]),
        ("migrate nobody --to-file d --postcopy", ["--postcopy", "--to-file"]),
        ("migrate nobody --to-file d --route live", ["--route", "--to-file"]),
        ("migrate nobody --to-file d --multifd 2", ["--multifd", "--to-file"]),
        ("migrate nobody --to-file d --transport tcp", ["--transport", "--to-file"]),
        ("migrate nobody --to-file d --no-verify", ["--no-verify", "--to-file"]),
        ("migrate nobody --to-file d --resume", ["--resume", "--to-file"]),
        ("migrate nobody --to-file d --to unix:x", ["--to and --to-file"]),
        ("migrate nobody b --to-file d", ["DEST", "restore"]),
        ("migrate nobody --to tcp://192.0.2.1:9", ["nobody"]),
        ("save nobody d", ["nobody"]),
        ("restore /nonexistent", ["/nonexistent"]),
        ("status ../nobody", ["guest.json"]),
        ("backend --dir /nonexistent", ["guest.json", "qemu-args"]),
        ("qemu-args --dir /proc/x --kernel /nonexistent", ["/nonexistent"]),
        ("completion ksh", ["ksh"]),
        ("frobnicate", ["frobnicate", "qemu-sdei --help"]),
        ("", ["COMMAND"]),
    ],
)
def test_one_line_and_exit_code_2(command: Command, runtime: Path, words: str, what: list[str]) -> None:
    check_refused(command(*words.split()), runtime, *what)


@pytest.mark.parametrize("words", ["run --smp 0 -- true", "migrate nobody", "frobnicate", ""])
def test_as_a_process(process: Command, runtime: Path, words: str) -> None:
    """A few of these as a user runs them."""
    check_refused(process(*words.split()), runtime)


def test_an_old_qemu(command: Command, runtime: Path, tmp_path: Path) -> None:
    qemu = tmp_path / "qemu-system-aarch64"
    qemu.write_text("#!/bin/sh\necho 'QEMU emulator version 5.2.0'\n")
    qemu.chmod(0o755)
    check_refused(command("run", "--qemu", str(qemu), "--", "true"), runtime, "5.2", "6.2")


def test_a_qemu_without_the_machine_option(command: Command, runtime: Path, tmp_path: Path) -> None:
    qemu = tmp_path / "qemu-system-aarch64"
    qemu.write_text("#!/bin/sh\necho 'QEMU emulator version 7.2.0'\necho '  virtualization=<bool>'\n")
    qemu.chmod(0o755)
    check_refused(command("run", "--qemu", str(qemu), "--", "true"), runtime, "secure")


def test_no_qemu_on_the_path(command: Command, runtime: Path) -> None:
    check_refused(command("selftest", env={"PATH": "/nonexistent"}), runtime, "qemu-system-aarch64", "--qemu")


def test_a_socket_path_that_is_too_long(command: Command, runtime: Path) -> None:
    long = runtime / ("d" * 90)
    long.mkdir()
    result = command("selftest", env={"XDG_RUNTIME_DIR": str(long)})
    check_refused(result, runtime, "socket path is too long", "XDG_RUNTIME_DIR")
    assert list(long.iterdir()) == []


def test_a_command_line_that_linux_would_cut(command: Command, runtime: Path) -> None:
    check_refused(command("selftest", "--append", "x" * 3000), runtime, "command line")


def test_a_kernel_that_does_not_fit(command: Command, runtime: Path, tmp_path: Path) -> None:
    image = tmp_path / "Image"
    header = bytearray(64)
    header[16:24] = (200 << 20).to_bytes(8, "little")
    header[56:60] = b"ARMd"
    image.write_bytes(header)
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"070701")
    result = command("run", "--kernel", str(image), "--initrd", str(initrd), "--memory", "128M")
    check_refused(result, runtime, "use --memory")


@pytest.mark.parametrize("text", ["def", "\0", "raise SystemExit('x' +"])
def test_a_script_that_is_no_python(command: Command, runtime: Path, tmp_path: Path, text: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(text)
    check_refused(command("run", "--script", str(script)), runtime, "script.py")


OWNER = "import sys; from qemu_sdei.rundir import RunDirectory; RunDirectory.create('mine'); print(flush=True); input()"


def test_a_name_that_is_taken(command: Command, runtime: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        result = command("selftest", "--name", "mine")
        assert result.returncode == 2
        assert f"'mine' is taken by process {owner.pid}" in result.stderr
        owner.communicate(b"\n")


def test_a_damaged_directory_of_qemu_args(command: Command, runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "guest.json").write_text("{}")
    check_refused(command("backend", "--dir", str(tmp_path)), runtime, "guest.json", "qemu-args")


@pytest.mark.parametrize("more", [{"vcpu": 1}, {"event": "0x100"}])
def test_what_belongs_to_a_hold_point_without_one(more: dict[str, Any]) -> None:
    args = argparse.Namespace(**{"hold": None, "event": "software", "vcpu": 0, "timeout": 30.0} | more)
    with pytest.raises(UsageError, match="--hold STATE"):
        hold_of(args, None)
