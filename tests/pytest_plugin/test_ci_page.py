"""The files of docs/howto/ci-of-a-kernel.md, as far as they can be run here: the script by the options that it gives,
what both CI systems do, what they install.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.guest.guests import check_nothing_left, page_example, runtime_directory

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/howto/ci-of-a-kernel.md").read_text()
FILES = dict(re.findall(r"^## `([^`]+)`\n```\w+\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))


def run(directory: Path, options: str) -> str:
    """What the script says, in a repository as the page has it."""
    folder = directory / "sdei"
    folder.mkdir()
    (folder / "run").write_text(FILES["sdei/run"])
    (folder / "test_my_kernel.py").write_text(page_example())
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTEST_ADDOPTS": f"-p no:cacheprovider {options}",
    }
    done = subprocess.run(
        ["sh", folder / "run"], env=environment, capture_output=True, text=True, timeout=300, cwd=directory, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_script_finds_ones_own_tests_and_the_scenarios(tmp_path: Path) -> None:
    out = run(tmp_path, "--collect-only -q -n 0")
    assert "test_my_kernel.py::test_the_kernel_finds_sdei" in out
    assert "test_boot.py::test_device_tree" in out


@pytest.mark.guest
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("linux_here")
def test_the_script_tests_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with runtime_directory() as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        out = run(tmp_path, "-k 'finds_sdei or test_without_sdei'")
        check_nothing_left(runtime)
    assert "2 passed" in out
    assert "No SDEI at all: it boots, and complains of nothing  ok" in out
    assert "sdei.release" in (tmp_path / "sdei/sdei.xml").read_text()
    assert list((tmp_path / "sdei/trace").iterdir())


@pytest.fixture
def linux_here() -> None:
    from qemu_sdei.host.debian import DebianCache

    if not DebianCache().cached_kernels() or DebianCache().cached_busybox() is None:
        pytest.skip("no Debian kernel in the cache: `qemu-sdei run -- true` gets one")


GITHUB_TOP = {"name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs"}
GITHUB_JOB = {
    "name", "permissions", "needs", "if", "runs-on", "environment", "concurrency", "outputs", "env", "defaults",
    "steps", "timeout-minutes", "strategy", "continue-on-error", "container", "services",
}  # fmt: skip
GITHUB_STEP = {
    "id", "if", "name", "uses", "run", "working-directory", "shell", "with", "env", "continue-on-error",
    "timeout-minutes",
}  # fmt: skip
"""Keys of GitHub's "Workflow syntax for GitHub Actions"."""
GITLAB_JOB = {
    "after_script", "allow_failure", "artifacts", "before_script", "cache", "environment", "extends", "image",
    "inherit", "interruptible", "needs", "parallel", "retry", "rules", "script", "services", "stage", "tags", "timeout",
    "variables", "when",
}  # fmt: skip
GITLAB_ARTIFACTS = {
    "access", "exclude", "expire_in", "expose_as", "name", "paths", "public", "reports", "untracked", "when",
}  # fmt: skip
"""Keys of GitLab's "CI/CD YAML syntax reference"."""


def test_both_files_are_what_the_ci_systems_read() -> None:
    """By a parser of YAML, and their keys by what both systems document."""
    yaml = pytest.importorskip("yaml", reason="no PyYAML here (requirements/docs.txt has it)")
    workflow = yaml.safe_load(FILES[".github/workflows/sdei.yml"])
    assert workflow.pop(True) == ["push", "pull_request"], "YAML 1.1 reads the key `on` so; GitHub does not"
    assert set(workflow) <= GITHUB_TOP
    (job,) = workflow["jobs"].values()
    assert {"runs-on", "steps"} <= set(job) <= GITHUB_JOB
    for step in job["steps"]:
        assert set(step) <= GITHUB_STEP
        assert ("uses" in step) != ("run" in step)
        assert "with" not in step or "uses" in step
    assert type(job["timeout-minutes"]) is int
    (job,) = yaml.safe_load(FILES[".gitlab-ci.yml"]).values()
    assert "script" in job
    assert set(job) <= GITLAB_JOB
    assert all(isinstance(line, str) for line in job["script"])
    assert set(job["artifacts"]) <= GITLAB_ARTIFACTS
    assert job["artifacts"]["reports"] == {"junit": "sdei/sdei.xml"}
    assert isinstance(job["cache"]["paths"], list)


def steps(name: str) -> list[str]:
    """The commands of a CI file, in order."""
    return re.findall(r"^ *- (?:run: )?((?:apt-get|python3|/opt|PATH=).*)$", FILES[name], re.MULTILINE)


def test_both_ci_systems_do_the_same() -> None:
    assert steps(".github/workflows/sdei.yml") == steps(".gitlab-ci.yml")
    assert steps(".gitlab-ci.yml")[-1].endswith(" sdei/run")
    for name in (".github/workflows/sdei.yml", ".gitlab-ci.yml"):
        assert not re.search(r"^ *\t", FILES[name], re.MULTILINE)
        assert "sdei/sdei.xml" in FILES[name]
        assert "sdei/trace" in FILES[name]


def test_what_they_install_is_what_there_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (line,) = (line for line in steps(".gitlab-ci.yml") if "/pip " in line)
    package, xdist = shlex.split(line)[2:]
    name, extra = re.fullmatch(r"([\w-]+)\[(\w+)\]", package).groups()  # type: ignore[union-attr]
    assert name == project["name"]
    assert extra in project["optional-dependencies"]
    assert xdist == "pytest-xdist"
    setup = (ROOT / "scripts/setup.sh").read_text()
    (packages,) = (line for line in steps(".gitlab-ci.yml") if " install -y" in line)
    for package in packages.split()[4:]:
        assert package in setup
