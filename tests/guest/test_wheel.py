"""The wheel of a clean checkout, installed where no source is around: all that guests need is inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from qemu_sdei.guestcompile import find_compiler
from tests.guest.guests import check_nothing_left, runtime_directory

ROOT = Path(__file__).resolve().parent.parent.parent

_WANTED = ("qemu_sdei/", "acpi/", "compat/", "guest/", "pyproject.toml", "README.md", "LICENSE")

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not in a git clone"),
]


def execute(*words: str | Path, cwd: Path = Path("/")) -> str:
    result = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False, timeout=100,
        stdin=subprocess.DEVNULL, env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` directory of a fresh venv that has the wheel, and from here only the packages that it depends on."""
    base = tmp_path_factory.mktemp("wheel")
    for name in execute("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if name.startswith(_WANTED) and (ROOT / name).exists():
            (base / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, base / "clone" / name, follow_symlinks=False)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    execute(*pip, "wheel", *offline, "--no-build-isolation", "-w", base, base / "clone")
    shutil.rmtree(base / "clone")
    execute(sys.executable, "-m", "venv", "--without-pip", base / "venv")
    (wheel,) = base.glob("*.whl")
    execute(*pip, "--python", base / "venv" / "bin" / "python", "install", *offline, wheel)
    (site,) = (base / "venv" / "lib").glob("python*/site-packages")
    # A path in a .pth file is only a path: this project's own link among the packages here is not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return base / "venv" / "bin"


def test_it_is_not_the_source(installed: Path) -> None:
    where = Path(execute(installed / "python", "-c", "from qemu_sdei import acpi; print(acpi.__file__)").strip())
    assert where.is_relative_to(installed.parent)


def test_the_command_is_the_module(installed: Path) -> None:
    version = execute(installed / "qemu-sdei", "--version")
    assert execute(installed / "python", "-m", "qemu_sdei", "--version") == version


@pytest.mark.skipif(find_compiler() is None, reason="no compiler for AArch64")
def test_scenarios_of_a_users_own_are_compiled(installed: Path, tmp_path: Path) -> None:
    """With the sources that are in the wheel."""
    own = ROOT / "tests" / "conformance" / "scenarios"
    code = "import pathlib, sys; from qemu_sdei import conformance; "
    code += "print(len(conformance.build(*map(pathlib.Path, sys.argv[1:])).guest.read_bytes()))"
    assert int(execute(installed / "python", "-c", code, own, tmp_path)) > 65536


@pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64")
def test_the_selftest_passes(installed: Path) -> None:
    with runtime_directory() as runtime:
        out = execute("env", f"XDG_RUNTIME_DIR={runtime}", installed / "qemu-sdei", "selftest")
        assert "\n    Result: OK\n" in out
        check_nothing_left(runtime)


@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize(
    "words", [["run", "--", "true"], pytest.param(["demo"], marks=pytest.mark.slow)], ids=lambda words: words[0]
)
def test_linux_boots(installed: Path, words: list[str]) -> None:
    with runtime_directory() as runtime:
        execute("env", f"XDG_RUNTIME_DIR={runtime}", installed / "qemu-sdei", *words)
        check_nothing_left(runtime)
