"""The host's wall clock jumps by hours, all the time, under owners, backends and commands: nobody notices.

CLOCK_MONOTONIC stays: that is what all of it goes by (tests/test_clock.py looks at the sources).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.trace.reading import open_trace
from tests.guest.guests import check_nothing_left, command, until

pytestmark = pytest.mark.guest

JUMPING = """
import datetime, itertools, time
_true, _steps = time.time_ns, itertools.count()
def _time_ns():
    return _true() + 3600 * 10**9 * (7 * next(_steps) % 11 - 5)
time.time_ns = _time_ns
time.time = lambda: _time_ns() / 1e9
_gmtime, _localtime = time.gmtime, time.localtime
time.gmtime = lambda seconds=None: _gmtime(time.time() if seconds is None else seconds)
time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)
_clock = time.clock_gettime
time.clock_gettime = lambda clock: time.time() if clock == time.CLOCK_REALTIME else _clock(clock)
class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls):
        return cls.utcfromtimestamp(time.time())
datetime.datetime = _Datetime
"""
"""A `sitecustomize`: each look at the wall clock shows a time some hours before or after the one before."""


@pytest.fixture
def jumping(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All Python processes that are started see a clock that jumps; so do files in the runtime directory."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = subprocess.run(
        [sys.executable, "-c", "import time; print([round(time.time()) for _ in range(11)])"],
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout
    assert max(json.loads(seen)) - min(json.loads(seen)) > 9 * 3600, "it jumps"
    stop = threading.Event()
    thread = threading.Thread(target=_age_files, args=(runtime, stop))
    thread.start()
    yield runtime
    stop.set()
    thread.join()
    for guest in rundir.running():  # of a test that failed
        command(runtime, "stop", guest.name).wait(30)


def _age_files(directory: Path, stop: threading.Event) -> None:
    step = 0
    while not stop.wait(0.02):
        for path in list(directory.rglob("*")):
            step += 1
            shown = 1_700_000_000 + 3600 * (7 * step % 11)
            try:
                os.utime(path, (shown, shown), follow_symlinks=False)
            except OSError:
                continue  # it has just gone


def ask(runtime: Path, *words: str) -> Any:
    """What a command says, as JSON."""
    process = command(runtime, *words, "--json")
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    return json.loads(out)


def events(runtime: Path, name: str, count: int) -> None:
    """Inject, and be told of each how long it took."""
    for vcpu in range(2):
        told = ask(runtime, "inject", name, "--event", "software", "--vcpu", str(vcpu), "--count", str(count), "--wait")
        assert told["outcomes"] == {"completed": count}
        for latency in told["latency_us"].values():
            assert 0 < latency["min"] <= latency["median"] <= latency["max"] < 60e6


@pytest.mark.timeout(150)
def test_a_guests_life(jumping: Path, tmp_path: Path) -> None:
    runtime = jumping
    console, trace = tmp_path / "console", tmp_path / "trace"

    def run(*words: str) -> subprocess.Popen[bytes]:
        with console.open("wb") as out:
            return command(runtime, *words, stdout=out)

    owner = run(
        *("run", "--name", "a", "--kernel", "builtin:bench", "--append", "mode=idle smp=2"),
        *("--memory", "64M", "--trace", str(trace)),
    )
    until("it is up", lambda: b"idle: ready" in console.read_bytes())
    backend = ask(runtime, "list")["guests"][0]["backend_pid"]
    assert os.fsencode(f"PYTHONPATH={tmp_path}") in Path(f"/proc/{backend}/environ").read_bytes().split(b"\0")
    events(runtime, "a", 50)
    for route, name in (("shared", "b"), ("live", "c")):
        moved = ask(runtime, "migrate", ask(runtime, "list")["guests"][0]["name"], name, "--route", route)
        assert 0 < moved["pause_ms"] <= moved["total_ms"] + 1 < 60_000
        events(runtime, name, 20)
    os.kill(ask(runtime, "list")["guests"][0]["backend_pid"], 9)
    events(runtime, "c", 20)
    status = ask(runtime, "status", "c")
    assert status["counts"]["completed"] == 2 * (50 + 20 + 20 + 20)
    saved = tmp_path / "saved"
    ask(runtime, "save", "c", str(saved), "--end")
    owner.communicate(timeout=30)
    assert owner.returncode == 0
    with open_trace(trace) as reading:
        times = [record["time_ns"] for record in reading.records() if record["time_ns"]]
    assert times, "something was traced"
    steps = [after - before for before, after in pairwise(times)]
    assert min(steps) > -1e9, "a call is stamped when it is answered; what came of it meanwhile is older"
    assert max(steps) < 600e9
    owner = run("restore", str(saved), "--name", "d")
    until("it is back", lambda: [guest.name for guest in rundir.running()] == ["d"])
    until("its backend answers", lambda: ask(runtime, "list")["guests"][0]["backend_pid"])
    events(runtime, "d", 20)
    assert ask(runtime, "status", "d")["counts"]["completed"] == status["counts"]["completed"] + 40
    assert command(runtime, "stop", "d").wait(30) == 0
    owner.communicate(timeout=30)
    check_nothing_left(runtime)
