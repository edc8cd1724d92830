"""The commands that need no guest."""

from __future__ import annotations

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from qemu_sdei import __version__
from qemu_sdei.cli import completion_words, make_parser
from qemu_sdei.cli.commands import COMMANDS
from qemu_sdei.config import GuestConfig
from qemu_sdei.rundir import RunDirectory
from tests.cli.conftest import Command

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64")


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A file with the header of an arm64 Image."""
    image = tmp_path / "Image"
    header = bytearray(4096)
    header[16:24] = (4096).to_bytes(8, "little")
    header[56:60] = b"ARMd"
    image.write_bytes(header)
    return image


def test_version_and_help(process: Command, command: Command) -> None:
    assert process("--version").stdout == f"qemu-sdei {__version__}\n"
    overview = process("--help").stdout
    for name in COMMANDS:
        assert name in overview
        assert f"qemu-sdei {name}" in command(name, "--help").stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, qemu_sdei.cli as c\n"
        "try: c.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('asyncio', 'rich', 'qemu', 'libfdt', 'subprocess', 'shtab') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = out.splitlines()[-1]
    assert "asyncio" not in heavy
    assert "rich" not in heavy
    assert "qemu" not in heavy


@pytest.mark.parametrize(
    ("words", "modules"),
    [
        (["list"], {"list_command"}),
        (["stop", "--help"], {"stop_command"}),
        (["resume", "--help"], {"pause_command"}),
        (["--help"], set()),
        (["nosuch"], set()),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_command_reads_in_no_other(words: list[str], modules: set[str], runtime: Path) -> None:
    """What the thirty others need takes three times as long as all that `list` does."""
    code = (
        "import sys, qemu_sdei.cli as c\n"
        f"try: c.main({words!r})\nexcept SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('qemu_sdei.')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    read_in = set(ast.literal_eval(out.splitlines()[-1]))
    assert {name for name in read_in if name.endswith("_command")} == {f"qemu_sdei.cli.{name}" for name in modules}
    rooms = {name.split(".")[1] for name in read_in}
    assert not rooms & {
        "acpi",
        "backend",
        "boot",
        "conformance",
        "explain",
        "guest",
        "migration",
        "sdei",
        "trace",
        "vm",
    }


def test_every_subcommand_is_there() -> None:
    help_text = make_parser().format_help()
    assert all(name in help_text for name in COMMANDS)


@needs_qemu
def test_dry_run_prints_a_command_line_and_creates_nothing(command: Command, runtime: Path, kernel: Path) -> None:
    result = command(
        "run", "--dry-run", "--kernel", str(kernel), "--smp", "3", "--qemu-arg=-device virtio-rng-pci", "--", "x"
    )
    assert result.returncode == 0, result.stderr
    assert "-smp 3 " in result.stdout
    assert result.stdout.endswith("-no-reboot -device virtio-rng-pci\n")
    assert list(runtime.iterdir()) == []
    words = json.loads(command("run", "--dry-run", "--json").stdout)["command"]
    assert "-no-reboot" not in words
    assert command("run", "--dry-run", "--kernel", "builtin:bench").returncode == 0


@needs_qemu
def test_dry_run_shows_the_devices_of_the_agent_and_the_helper(command: Command, kernel: Path) -> None:
    """What a user compares a command line of their own with is what a guest has."""
    plain = json.loads(command("run", "--kernel", str(kernel), "--dry-run", "--json").stdout)["command"]
    assert any(word.startswith("virtio-serial-pci,id=channel") for word in plain)
    assert sum(word.startswith("virtserialport") for word in plain) == 5
    assert not any(word.startswith("pci-serial") for word in plain)
    ras = json.loads(command("run", "--kernel", str(kernel), "--ras", "--dry-run", "--json").stdout)["command"]
    assert any(word.startswith("pci-serial,chardev=helper") for word in ras)
    own = command("run", "--kernel", str(kernel), "--initrd", str(kernel), "--dry-run").stdout
    assert "virtio-serial" not in own
    assert "virtio-serial" not in command("run", "--kernel", "builtin:bench", "--dry-run").stdout


def test_list_of_nothing(command: Command) -> None:
    assert command("list").stdout == "no guest is running\n"
    assert json.loads(command("list", "--json").stdout) == {"guests": []}


def test_list_shows_a_guest_that_is_starting(command: Command, runtime: Path) -> None:
    directory = RunDirectory.create("starting")
    (guest,) = json.loads(command("list", "--json").stdout)["guests"]
    assert (guest["name"], guest["backend_pid"]) == ("starting", None)
    directory.remove()


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(command: Command, shell: str) -> None:
    result = command("completion", shell)
    assert result.returncode == 0
    assert "selftest" in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_takes_its_completion(command: Command) -> None:
    script = command("completion", "bash").stdout
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


COMPLETE = """
COMP_WORDS=({words}) COMP_CWORD=${{#COMP_WORDS[@]}}
COMP_WORDS+=('{last}') COMP_LINE='{words} {last}' COMP_POINT=1000
_shtab_qemu_sdei
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "last", "completed"),
    [
        ("qemu-sdei", "se", "selftest"),
        ("qemu-sdei run", "--dry", "--dry-run"),
        ("qemu-sdei run --kernel", "/etc/host", "/etc/hostname /etc/hosts"),
        ("qemu-sdei backend --dir", "/et", "/etc"),
        ("qemu-sdei completion", "", "bash zsh tcsh"),
        ("qemu-sdei status", "mi", "mine"),
        ("qemu-sdei migrate --route", "", "shared copy live postcopy"),
        ("qemu-sdei migrate --hold", "pend", "pending-masked"),
        ("qemu-sdei inject --event", "gh", "ghes"),
        ("qemu-sdei run --firmware", "gic", "gic-active"),
        ("qemu-sdei run --series", "6.1", "6.1 6.12"),
        ("qemu-sdei ras inject --severity", "re", "recoverable"),
    ],
)
def test_bash_completes(command: Command, runtime: Path, words: str, last: str, completed: str) -> None:
    script = command("completion", "bash").stdout
    guest = RunDirectory.create("mine")
    result = subprocess.run(
        ["bash"], input=script + COMPLETE.format(words=words, last=last), capture_output=True, text=True, check=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    guest.remove()
    assert set(completed.split()) <= set(result.stdout.split())
    assert all(word.startswith(last) for word in result.stdout.split())


def test_no_word_of_a_stranger_s_reaches_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of events and sources come along with a guest from another host, and shells expand words."""
    names = ["$(touch /tmp/x)", "`id`", "a b", "\x1b[2J", "ghes", "a;b", "-rf"]
    status = {"events": [{"name": name} for name in names], "sources": [{"name": name} for name in names]}
    monkeypatch.setattr(completion_words, "_statuses", lambda: iter([status]))
    assert completion_words.words("events") == completion_words.words("sources") == ["ghes"]


def test_doctor_says_what_is_there(command: Command) -> None:
    result = command("doctor", "--json")
    answer = json.loads(result.stdout)
    assert {"QEMU", "embedded programs"} <= {finding["name"] for finding in answer["findings"]}
    assert result.returncode == (0 if answer["ok"] else 1)


def test_doctor_says_what_is_missing(command: Command) -> None:
    result = command("doctor", env={"PATH": "/nonexistent"})
    assert result.returncode == 1
    assert "QEMU (needed" in result.stdout
    assert "guests can run here" not in result.stdout


@needs_qemu
def test_qemu_args_for_a_command_line(
    command: Command, kernel: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    directory = tmp_path / "own"
    result = command("qemu-args", "--dir", str(directory), "--kernel", str(kernel), "--memory", "256M", "--name", "own")
    assert result.returncode == 0, result.stderr
    assert "-serial mon:stdio" in result.stdout
    assert "qemu-sdei backend --dir" in result.stdout
    assert "removes it" in result.stdout
    config = GuestConfig.from_json((directory / "guest.json").read_bytes())
    assert config.ram_path is not None
    assert f"mem-path={config.ram_path}" in result.stdout
    ram = Path(config.ram_path)
    request.addfinalizer(lambda: ram.unlink(missing_ok=True))  # the one of the last assignment
    assert (ram.stat().st_mode & 0o777, ram.stat().st_size) == (0o600, (256 << 20) + 8192)
    # Once more: the old file is not left behind.
    again = command("qemu-args", "--dir", str(directory), "--kernel", str(kernel), "--name", "own", "--json")
    assert not ram.exists()
    ram = Path(json.loads(again.stdout)["ram"])
    assert ram.stat().st_size == (1 << 30) + 8192
    ram.unlink()
    assert (config.name, config.ram_size) == ("own", (256 << 20) + 8192)
    assert (directory / "monitor.bin").stat().st_size > 1000
    assert directory.stat().st_mode & 0o777 == 0o700


@needs_qemu
def test_qemu_args_for_libvirt(command: Command, kernel: Path, tmp_path: Path) -> None:
    where = ["--dir", str(tmp_path / "own"), "--ram", str(tmp_path / "ram")]
    result = command("qemu-args", *where, "--kernel", str(kernel), "--libvirt")
    domain = xml.etree.ElementTree.fromstring(result.stdout.partition("<!-- serve")[0])
    namespace = "{http://libvirt.org/schemas/domain/qemu/1.0}"
    words = [argument.get("value") for argument in domain.iter(f"{namespace}arg")]
    assert "-bios" in words
    # libvirt makes the console itself: ours must be the only one that is added.
    assert words.count("-serial") == 1


@needs_qemu
def test_qemu_args_as_json(command: Command, kernel: Path, tmp_path: Path) -> None:
    ram = str(tmp_path / "ram")
    answer = json.loads(
        command("qemu-args", "--dir", str(tmp_path / "o"), "--kernel", str(kernel), "--ram", ram, "--json").stdout
    )
    assert answer["ram"] == ram
    assert "-object" in answer["arguments"]


@needs_qemu
def test_qemu_args_leaves_a_directory_alone_that_is_served(command: Command, kernel: Path, tmp_path: Path) -> None:
    ram = str(tmp_path / "ram")
    words = ["qemu-args", "--dir", str(tmp_path / "o"), "--kernel", str(kernel), "--ram", ram]
    assert command(*words).returncode == 0
    with socket.socket(socket.AF_UNIX) as qemu:
        qemu.bind(str(tmp_path / "o" / "doorbell.sock"))
        qemu.listen(1)
        result = command(*words)
    assert result.returncode == 2
    assert "end it first" in result.stderr


@needs_qemu
def test_a_ram_file_that_is_something_else(command: Command, kernel: Path, tmp_path: Path) -> None:
    (tmp_path / "ram").write_text("mine")
    words = ["--kernel", str(kernel), "--ram", str(tmp_path / "ram")]
    result = command("qemu-args", "--dir", str(tmp_path / "o"), *words)
    assert result.returncode == 2
    assert "is in the way" in result.stderr
    assert (tmp_path / "ram").read_text() == "mine"
