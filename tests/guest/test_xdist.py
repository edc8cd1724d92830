"""The scenario library under pytest-xdist, with workers that are killed at random: no guest is left, and what a test is
said to be it is.

QEMU_SDEI_KILL_RUNS=200: so many runs.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.guest.guests import check_nothing_left

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.usefixtures("linux"),
    pytest.mark.timeout(14400),
]
RUNS = int(os.environ.get("QEMU_SDEI_KILL_RUNS", "2"))
FAST = "test_events and (idle or signal or interrupts_off or masked) or test_cpu_on_is_denied or test_without_sdei"
CRASHED = "crashed while running"
_END = 400.0


def workers(pid: int) -> list[int]:
    """The processes that xdist has started."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def run_and_kill(chosen: random.Random, junit: Path, log: Path) -> int:
    """Run the fast part with two workers, and kill some. Returns how many."""
    killed = 0
    words = [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "--max-worker-restart", "99"),
        *("--pyargs", "qemu_sdei.scenarios", "-k", FAST, f"--junitxml={junit}", "--sdei-cores", "6"),
    ]
    with log.open("wb") as output, subprocess.Popen(words, cwd="/", stdout=output, stderr=output) as pytest_run:
        deadline = time.monotonic() + _END
        at = time.monotonic() + chosen.uniform(1, 8)
        while pytest_run.poll() is None:
            if time.monotonic() > deadline:
                pytest_run.kill()
                raise AssertionError(f"pytest did not end within {_END:g} s:\n{log.read_text()[-3000:]}")
            if killed < 3 and time.monotonic() > at and (found := workers(pytest_run.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chosen.choice(found), signal.SIGKILL)
                    killed += 1
                at = time.monotonic() + chosen.uniform(1, 8)
            time.sleep(0.05)
    return killed


@pytest.mark.parametrize("seed", range(RUNS))
def test_workers_are_killed(seed: int, runtime: Path, tmp_path: Path) -> None:
    junit, log = tmp_path / "junit.xml", tmp_path / "log"
    killed = run_and_kill(random.Random(seed), junit, log)
    text = log.read_text(errors="replace")
    assert junit.exists(), text[-3000:]
    cases = list(ElementTree.parse(junit).iter("testcase"))
    wrong = [case for case in cases for bad in (*case.iter("failure"), *case.iter("error")) if not _crashed(bad)]
    assert not wrong, text[-6000:]
    crashed = sum(1 for case in cases for bad in case.iter("failure") if _crashed(bad))
    assert crashed <= killed
    assert len({case.get("name") for case in cases}) >= 6 - killed, text[-3000:]
    check_nothing_left(runtime)
    print(f"killed {killed}, crashed {crashed}, of {len(cases)}")


def _crashed(element: ElementTree.Element) -> bool:
    return CRASHED in f"{element.get('message')}{element.text}"
