"""The scripts that set everything up, with a PATH of our own making: nothing is installed here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from scripts.benchlib import trace

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = [
    ROOT / name
    for name in (
        "scripts/setup.sh",
        "scripts/demo",
        "scripts/test",
        "scripts/crash-kernel",
        "scripts/debian-disk",
        ".ci/run",
    )
]
BASE = ("basename", "bash", "cat", "cksum", "dirname", "env", "flock", "id", "mkdir", "realpath", "sh", "touch", "true")
"""What the scripts may use of a bare machine, besides the tools that they look for."""


class Machine:
    """A clone without .venv, on a machine that has no more tools than it is given."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "clone"
        self.bin = directory / "bin"
        self.log = directory / "log"
        self.bin.mkdir()
        for folder in ("scripts", "requirements"):
            shutil.copytree(ROOT / folder, self.root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", self.root)
        for name in BASE:
            found = shutil.which(name)
            assert found, name
            (self.bin / name).symlink_to(found)
        self.log.touch()

    def give(self, *names: str, script: str = "exit 0") -> None:
        """Tools that log how they are called."""
        for name in names:
            (self.bin / name).unlink(missing_ok=True)
            (self.bin / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\n{script}\n')
            (self.bin / name).chmod(0o755)

    def give_all(self) -> None:
        self.give("qemu-system-aarch64", "aarch64-linux-gnu-gcc", "make", "dtc", "iasl")

    def give_venv(self, *roles: str) -> None:
        """A .venv that was set up before."""
        (self.root / ".venv" / "bin").mkdir(parents=True)
        (self.root / ".venv" / "bin" / "python").symlink_to("/bin/true")
        for role in roles:
            (self.root / ".venv" / f"set-up-{role}").write_text(self.run(f"wanted_state {role}").stdout)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run shell code that uses scripts/setup.sh, from another directory."""
        return subprocess.run(
            ["/bin/bash", "-c", f"set -euo pipefail; source '{self.root}/scripts/setup.sh'; {command}"],
            env={"PATH": str(self.bin), "HOME": str(self.root), "QEMU_SDEI_CROSS": ""}, cwd="/", text=True,
            capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_apt_one_message_lists_all_that_is_missing(machine: Machine) -> None:
    result = machine.run("set_up run")
    assert result.returncode == 2
    for word in ("no apt", "--qemu PATH", "--kernel PATH", "--busybox PATH", "prebuilt EL3 monitor"):
        assert word in result.stderr
    assert not (machine.root / ".venv").exists()


def test_without_apt_what_is_pointed_to_is_not_missing(machine: Machine) -> None:
    machine.give_venv("run")
    assert machine.run("set_up run --qemu /q --kernel=/k --busybox /b").returncode == 0
    only_kernel = machine.run("set_up run --kernel /k")
    assert only_kernel.returncode == 2
    assert "--kernel" not in only_kernel.stderr
    assert "--qemu" in only_kernel.stderr


def test_what_is_missing_is_installed_in_one_go(machine: Machine) -> None:
    machine.give_venv("run")
    machine.give("make")
    machine.give("apt-get", "apt-cache")
    machine.give("id", script="echo 0")
    assert machine.run("set_up run").returncode == 0
    installs = [line for line in machine.log.read_text().splitlines() if line.startswith("apt-get")]
    assert len(installs) == 1
    packages = "qemu-system-arm gcc-aarch64-linux-gnu device-tree-compiler acpica-tools"
    assert installs[0].endswith(f"install --no-install-recommends {packages}")


def test_lists_that_do_not_know_the_packages_are_updated_first(machine: Machine) -> None:
    machine.give_venv("run")
    machine.give("apt-get")
    machine.give("apt-cache", script="exit 100")
    machine.give("id", script="echo 0")
    assert machine.run("set_up run").returncode == 0
    calls = [line for line in machine.log.read_text().splitlines() if line.startswith("apt-get")]
    assert [("update" in line.split(), "install" in line.split()) for line in calls] == [(True, False), (False, True)]


def test_old_lists_are_updated_and_it_is_tried_again(machine: Machine) -> None:
    machine.give_venv("run")
    machine.give("apt-cache")
    machine.give("id", script="echo 0")
    updated = machine.log.with_name("updated")
    machine.give("apt-get", script=f"case $* in *update) touch {updated} ;; *) [ -e {updated} ] ;; esac")
    assert machine.run("set_up run").returncode == 0
    machine.give("apt-get", script="exit 100")
    failed = machine.run("set_up run")
    assert failed.returncode == 2
    assert "apt-get update failed" in failed.stderr


def test_without_root_and_sudo_the_command_for_root_is_said(machine: Machine) -> None:
    machine.give("apt-get", "apt-cache")
    machine.give("id", script="echo 1000")
    result = machine.run("set_up run")
    assert result.returncode == 2
    assert "apt-get install --no-install-recommends qemu-system-arm" in result.stderr
    assert "apt-get" not in machine.log.read_text()


def test_sudo_is_used_when_it_is_there(machine: Machine) -> None:
    machine.give_venv("run")
    machine.give("apt-get", "apt-cache", "sudo")
    machine.give("id", script="echo 1000")
    assert machine.run("set_up run").returncode == 0
    assert "sudo env DEBIAN_FRONTEND=noninteractive apt-get" in machine.log.read_text()


def test_when_nothing_is_missing_nothing_is_run(machine: Machine) -> None:
    machine.give_all()
    machine.give("apt-get", "apt-cache", "pip")
    machine.give_venv("run", "test")
    for role in ("run", "test"):
        result = machine.run(f"set_up {role}")
        assert (result.returncode, result.stderr) == (0, "")
    assert "apt" not in machine.log.read_text()


def test_other_requirements_are_noticed(machine: Machine) -> None:
    machine.give_venv("run")
    assert machine.run("venv_is run").returncode == 0
    with (machine.root / "requirements" / "run.txt").open("a") as file:
        file.write("# a newer version\n")
    assert machine.run("venv_is run").returncode != 0


def pinned(role: str) -> dict[str, str]:
    """The hashes of each package of a requirements file, by name and version."""
    text = (ROOT / "requirements" / f"{role}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.split()[0]: line.partition(" ")[2] for line in lines}


def normal(requirement: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


@pytest.mark.parametrize("role", ["run", "test"])
def test_every_package_is_pinned_by_version_and_hash(role: str) -> None:
    for package, hashes in pinned(role).items():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+", package)
        assert re.fullmatch(r"(\s*--hash=sha256:[0-9a-f]{64})+\s*", hashes), package
        assert "://" not in hashes


def test_everything_that_pyproject_wants_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run, test = ({normal(package) for package in pinned(role)} for role in ("run", "test"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    assert {normal(requirement) for requirement in wanted} <= run <= test
    assert {normal(name) for name in project["project"]["optional-dependencies"]["test"]} <= test


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=60)
    if shellcheck := shutil.which("shellcheck"):
        result = subprocess.run([shellcheck, "-x", str(script)], cwd=ROOT, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout


def test_the_bench_knows_what_a_call_does_for_the_trace() -> None:
    """Its reference is the backend without these lines, which must be there to be left out."""
    for file in trace.RING_LINES:
        left = trace.stripped(file)
        assert "slot[" not in left
        assert "keep(Type.TRANSITION" not in left
        compile(left, file.name, "exec")
