"""Children: how they end, and that they end with us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_sdei.vm.process import Child, describe_exit, log_tail


def run(tmp_path: Path, *argv: str, grace: float = 10, number: signal.Signals | None = None) -> int:
    async def main() -> int:
        child = Child(argv, pass_fds=(), log=tmp_path / "log", stdin_pipe=False, die_with_parent=True)
        if number is not None:
            child.kill(number)
        await child.end(grace)
        child.kill()  # of a process that is gone: nothing
        assert child.returncode is not None
        return child.returncode

    return asyncio.run(main())


def test_status_and_output_are_kept(tmp_path: Path) -> None:
    assert run(tmp_path, "sh", "-c", "echo out; echo err >&2; exit 3") == 3
    assert log_tail(tmp_path / "log").split() == ["out", "err"]


def test_a_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    assert run(tmp_path, "sleep", "100", grace=0.1) == -signal.SIGKILL


def test_a_signal_shows_in_the_status(tmp_path: Path) -> None:
    assert run(tmp_path, "sleep", "100", number=signal.SIGTERM) == -signal.SIGTERM


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    # setpriv is what is started; it says why it cannot go on.
    assert run(tmp_path, "/nonexistent") != 0
    assert "/nonexistent" in log_tail(tmp_path / "log")


def test_the_end_of_the_parent_is_the_end_of_standard_input(tmp_path: Path) -> None:
    async def main() -> int:
        child = Child(["cat"], pass_fds=(), log=tmp_path / "log", stdin_pipe=True, die_with_parent=False)
        child.close_stdin()
        return await asyncio.wait_for(child.wait(), 10)

    assert asyncio.run(main()) == 0


PARENT = """
import asyncio, sys
from pathlib import Path
from qemu_sdei.vm.process import Child
async def main():
    child = Child(["sleep", "1000"], pass_fds=(), log=Path(sys.argv[1]), stdin_pipe=False, die_with_parent=True)
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        child = os.pidfd_open(pid)
        # setpriv becomes the program once the death signal is set.
        while Path(f"/proc/{pid}/comm").read_text().strip() != "sleep":
            pass
        parent.kill()
    os.set_blocking(child, False)
    poll = __import__("select").poll()
    poll.register(child)
    assert poll.poll(10_000), "the child still runs 10 s after its parent was killed"
    os.close(child)


@pytest.mark.parametrize(
    ("code", "text"), [(0, "ended with status 0"), (-9, "was killed by SIGKILL"), (-200, "was killed by signal 200")]
)
def test_ends_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text
