"""The command in worlds that nobody has at home: no home, an unknown user, a full disk, a closed pipe, Ctrl-C at any
moment. Whatever it is: one line that says what to do, never a traceback, and no success that is none.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
STRANGER = "4243"
"""A user id that is in no user database."""
PROGRAM = (sys.executable, "-m", "qemu_sdei")
GUEST = ("run", "-q", "--kernel", "builtin:bench", "--append")
ONE_CALL = "mode=call function=0x84000000"


def one_line(result: subprocess.CompletedProcess[str], status: int) -> str:
    """The one line of an error."""
    assert "Traceback" not in result.stderr + result.stdout
    assert "internal error" not in result.stderr
    assert result.returncode == status, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user reaches."""
    with tempfile.TemporaryDirectory(prefix="qs-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_stranger(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command by a user that nobody knows, with this environment alone."""
    privileges = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
    return subprocess.run(
        [*privileges, *PROGRAM, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd="/",
        env={"PATH": SYSTEM_PATH, "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        stdin=subprocess.DEVNULL,
    )


@functools.cache
def reachable_by_others() -> bool:
    """Whether another user can run this Python and read this package."""
    words = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", *PROGRAM, "--version"]
    return subprocess.run(words, capture_output=True, cwd="/", check=False).returncode == 0


@pytest.fixture
def stranger() -> None:
    """The test is done by another user."""
    if os.getuid() != 0 or shutil.which("setpriv") is None or not reachable_by_others():
        pytest.skip("only root can be somebody else, and only where others may read the clone")


@pytest.mark.usefixtures("stranger")
@needs_qemu
@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "relative"}, {"HOME": "/root"}])
def test_a_user_without_a_home(home: dict[str, str], open_directory: Path) -> None:
    """What needs no cache works; what needs one says how to name it; `doctor` says so beforehand."""
    runtime = open_directory / "run"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, int(STRANGER), int(STRANGER))
    environment = home | {"XDG_RUNTIME_DIR": str(runtime)}
    guest = as_stranger(*GUEST, ONE_CALL, **environment)
    assert (guest.returncode, "x0=0x10001" in guest.stdout) == (0, True), guest.stderr
    assert "XDG_CACHE_HOME" in one_line(as_stranger("run", "-q", "--", "true", **environment), 2)
    doctor = as_stranger("doctor", **environment)
    assert doctor.returncode == 1
    assert "guests can run here" not in doctor.stdout
    assert "XDG_CACHE_HOME" in doctor.stdout


@pytest.mark.usefixtures("stranger")
@needs_qemu
@pytest.mark.parametrize("broken", ["runtime", "cache", "qemu"])
def test_doctor_never_says_ok_where_run_refuses(broken: str, open_directory: Path) -> None:
    """Places of another user, and no QEMU."""
    theirs, foreign = open_directory / "theirs", open_directory / "foreign"
    theirs.mkdir(mode=0o700)
    foreign.mkdir(mode=0o700)
    os.chown(theirs, int(STRANGER), int(STRANGER))
    environment = {
        "HOME": str(theirs),
        "XDG_RUNTIME_DIR": str(foreign if broken == "runtime" else theirs),
        "XDG_CACHE_HOME": str(foreign if broken == "cache" else theirs),
        "PATH": "/nonexistent" if broken == "qemu" else SYSTEM_PATH,
    }
    words = ("run", "-q", "--", "true") if broken == "cache" else (*GUEST, ONE_CALL)
    if broken == "qemu":
        result = subprocess.run(
            [*PROGRAM, *words], capture_output=True, text=True, timeout=60, check=False, env=environment
        )
        doctor = subprocess.run([*PROGRAM, "doctor"], capture_output=True, text=True, timeout=60, env=environment)
    else:
        result, doctor = as_stranger(*words, **environment), as_stranger("doctor", **environment)
    one_line(result, 2)
    assert doctor.returncode == 1
    assert "guests can run here" not in doctor.stdout


@pytest.mark.usefixtures("stranger")
def test_a_runtime_directory_below_anothers(open_directory: Path) -> None:
    """It may not even be looked at."""
    below = open_directory / "foreign" / "run"
    below.mkdir(parents=True)
    below.parent.chmod(0o700)
    result = as_stranger("list", XDG_RUNTIME_DIR=str(below), HOME="/")
    assert "XDG_RUNTIME_DIR" in one_line(result, 2)


@pytest.mark.parametrize(
    "words",
    [
        ["--kernel", "{long}"],
        ["--initrd", "~nobody-of-this-name/x"],
        ["--qemu", "{long}"],
        ["--memory-path", "{long}"],
        ["--drive", "{long}"],
        ["--share", "{long}"],
        ["--events", "{long}"],
        ["--service", "{long}"],
        ["--script", "{long}"],
        ["--trace", "{long}"],
        ["--name", "{long}"],
    ],
)
@needs_qemu
def test_over_long_names(command: Command, words: list[str]) -> None:
    result = command("run", "-q", "--dt", *(word.format(long="a" * 300) for word in words))
    assert len(one_line(result, 2)) < 500


# ---- output that cannot be written ----------------------------------------------------------------------------------


WRITERS = [
    *(["--help"], ["run", "--help"], ["list"], ["list", "--json"], ["dt"], ["tables"], ["completion", "bash"]),
    *(["doctor", "--no-guest"], ["tables", "show", "{table}"]),
]


@pytest.fixture
def table(command: Command, tmp_path: Path) -> str:
    path = tmp_path / "hest.aml"
    assert command("tables", "--ghes", "ghes@0xbff00000", "--table", "hest", "-o", str(path)).returncode == 0
    return str(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", WRITERS, ids=" ".join)
def test_a_full_disk_is_an_error(words: list[str], runtime: Path, table: str) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*PROGRAM, *(word.format(table=table) for word in words)],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False, env=os.environ,
        )  # fmt: skip
    result.stdout = ""
    assert "standard output cannot be written: No space left" in one_line(result, 1)


@needs_qemu
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [[*GUEST, ONE_CALL], ["selftest", "-q"]], ids=["console", "selftest"])
def test_a_guest_whose_words_nobody_can_keep(words: list[str], runtime: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*PROGRAM, *words], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert "standard output cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in (runtime / "qemu-sdei").iterdir()] == [".lock"]


@pytest.mark.parametrize("words", [*WRITERS[:-1], [*GUEST, ONE_CALL]], ids=" ".join)
def test_a_closed_pipe_is_no_success(words: list[str], runtime: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [*PROGRAM, *words], stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    os.close(write)
    assert result.returncode == 141
    assert result.stderr == ""


def test_output_in_ascii(process: Command, tmp_path: Path) -> None:
    """A character that the output cannot have is shown by its number, on both streams."""
    strange = tmp_path / "\u00e9\U0001f600"
    result = process("tables", "show", str(strange), env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert "\\xe9" in one_line(result, 2)
    strange.mkdir(mode=0o700)
    shown = process("doctor", "--no-guest", env={"PYTHONIOENCODING": "ascii", "XDG_CACHE_HOME": str(strange)})
    assert "\\xe9" in shown.stdout
    assert "Traceback" not in shown.stderr


# ---- Ctrl-C ---------------------------------------------------------------------------------------------------------


@needs_qemu
@pytest.mark.parametrize("part", range(8))
def test_ctrl_c_at_any_moment_of_the_start(part: int, runtime: Path) -> None:
    """From the interpreter's first instructions to a guest that runs. Which moment it hits does not matter: the process
    ends as one that was interrupted does, says nothing of Python, and leaves nothing.
    """
    process = subprocess.Popen(
        [*PROGRAM, *GUEST, "mode=idle"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if part == 7:
        assert "idle: ready" in process.stdout.readline()
    else:
        time.sleep(0.15 + 0.1 * part)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if "init_import_site" not in err:  # else Python itself had not come up
        assert process.returncode in (130, -signal.SIGINT), err
    assert "qemu_sdei/" not in err, "Python itself may have been interrupted before it came to us"
    base = runtime / "qemu-sdei"
    assert not base.exists() or [path.name for path in base.iterdir()] in ([], [".lock"])


# ---- a user's script ------------------------------------------------------------------------------------------------


@needs_qemu
@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("guest.inject(event=0x999, vcpu=0)", 2, "there is no event 0x999"),
        ("guest.expect('never', timeout=0.1)", 1, "never"),
        ("{}['mine']", 1, "KeyError: 'mine'"),
        ("import json; json.loads('{')", 1, "JSONDecodeError"),
    ],
)
def test_a_script_sees_its_own_frames(process: Command, tmp_path: Path, body: str, status: int, said: str) -> None:
    script = tmp_path / "mine.py"
    script.write_text(f"def helper():\n    {body}\n\nhelper()\n")
    result = process(*GUEST, "mode=idle", "--script", str(script))
    assert result.returncode == status, result.stderr
    assert said in result.stderr
    frames = [line.split('"')[1] for line in result.stderr.splitlines() if line.startswith('  File "')]
    assert frames == [str(script), str(script)]
