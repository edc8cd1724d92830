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
from tests.guest.guests import check_nothing_left, page_example, runtime_directory

ROOT = Path(__file__).resolve().parent.parent.parent

_WANTED = ("qemu_sdei/", "acpi/", "compat/", "guest/", "pyproject.toml", "README.md", "LICENSE")

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not in a git clone"),
]


def execute(*words: str | Path, cwd: Path = Path("/"), limit: float = 100) -> str:
    result = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False, timeout=limit,
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


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize("what", ["page", "scenarios"])
def test_pytest_has_fixtures_and_scenarios(installed: Path, what: str, tmp_path: Path) -> None:
    """The file at the top of docs/howto/pytest.md, in a directory of its own; a scenario of the wheel."""
    tmp_path.joinpath("test_my_kernel.py").write_text(page_example())
    chosen = ["test_my_kernel.py"] if what == "page" else ["--pyargs", "qemu_sdei.scenarios", "-k", "test_without_sdei"]
    with runtime_directory() as runtime:
        out = execute(
            "env", f"XDG_RUNTIME_DIR={runtime}",
            installed / "python", "-m", "pytest", "-p", "no:cacheprovider", "-v", *chosen, cwd=tmp_path, limit=250,
        )  # fmt: skip
        check_nothing_left(runtime)
    assert ("3 passed in " if what == "page" else "1 passed, ") in out
    assert "wheel" in out.partition("plugins: ")[0], "the interpreter is the one of the venv"
