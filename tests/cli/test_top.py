"""`qemu-sdei top` and `events` of a guest that answers without QEMU: at a terminal, and without one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from qemu_sdei import rundir
from qemu_sdei.guest import status_schema
from qemu_sdei.sdei.constants import Function
from qemu_sdei.trace.meta import TraceMeta
from tests.backend.controlled import Backend
from tests.cli.conftest import Command
from tests.cli.full_terminal import ENTER, LEAVE, terminal
from tests.cli.watched import NOW, WatchedGuest

RECORDS = [
    {"time_ns": NOW, "type": "deliver", "pe": 1, "event": 0x100, "from": 3, "to": 7, "cause": "DISPATCH"},
    {"time_ns": NOW + 9000, "type": "complete", "pe": 1, "event": 0x100, "from": 7, "to": 3, "cause": "COMPLETE"},
    {"time_ns": NOW + 9900, "type": "power", "pe": 0, "state": "off"},
]


@pytest.fixture
def guest(runtime: Path) -> Iterator[WatchedGuest]:
    found = WatchedGuest()
    found.records += RECORDS
    yield found
    found.end()


def test_keys(guest: WatchedGuest) -> None:
    """Choose, inject, pause, resume, help, another size, quit."""
    with terminal() as top:
        top.until("event 0x100 (private-0)")
        top.until("handler entered")
        top.until("arrows choose")
        top.screen.send("\x1b[B\t")
        top.until("event 0x101 (private-1)")
        top.screen.send("i")
        top.until("event 0x101 on vCPU 1: handler entered after 40 µs, completed after 56 µs")
        assert guest.injected == [(0x101, 1)]
        top.screen.send("p")
        top.until("PAUSED")
        assert guest.machine.status == "paused"
        top.screen.send("p")
        top.until("the guest is running now")
        assert guest.machine.status == "running"
        top.screen.send("?")
        top.until("any key: back")
        top.screen.send("x")
        top.until("arrows choose")
        top.screen.setwinsize(40, 160)
        top.until("last went on at")
        top.screen.send("q")
        assert top.end() == 0


def test_a_refusal_is_said(guest: WatchedGuest) -> None:
    guest.refusal = {"kind": "state", "message": "event 0x100 (private-0) is not registered on PE 0"}
    with terminal() as top:
        top.until("arrows choose")
        top.screen.send("i")
        top.until("event 0x100 (private-0) is not registered on PE 0")
        top.screen.send("\x03")
        assert top.end() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal(guest: WatchedGuest, number: signal.Signals) -> None:
    with terminal() as top:
        top.until("arrows choose")
        assert top.screen.pid is not None
        os.kill(top.screen.pid, number)
        assert top.end() == 128 + number


def test_ctrl_z_gives_the_terminal_back(guest: WatchedGuest) -> None:
    """To the shell, which says that it is stopped; `fg` has it go on."""
    script = f"{sys.executable} -m qemu_sdei top --interval 0.1; echo stopped $?; fg >/dev/null; echo ended $?"
    with terminal(script, program="sh", options=["-mc"]) as top:
        top.until("arrows choose")
        top.screen.send("\x1a")
        top.until(LEAVE)
        top.until("stopped 148")
        top.until(ENTER)
        top.until("arrows choose")
        top.screen.send("q")
        top.until("ended 0")
        assert top.seen.count(ENTER) == top.seen.count(LEAVE) == 2


def test_the_guest_ends(guest: WatchedGuest) -> None:
    with terminal() as top:
        top.until("arrows choose")
        guest.backend.answer = lambda request: None
        guest.end()
        assert top.end() == 0
        assert "guest 'demo' has ended" in top.seen[top.seen.rindex(LEAVE) :]


def test_a_backend_that_answers_nonsense(guest: WatchedGuest) -> None:
    with terminal() as top:
        top.until("arrows choose")
        guest.status["pes"] = [1]
        answer = guest.backend.answer
        guest.backend.answer = lambda request: (
            answer(request) if request["cmd"] != "status" else json.dumps(
                {"id": request["id"], "ok": True, "result": {"pes": [1], "events": []}}
            ).encode() + b"\n"
        )  # fmt: skip
        assert top.end() == 1
        assert "not of the protocol's form" in top.seen[top.seen.rindex(LEAVE) :]
        assert "Traceback" not in top.seen


@pytest.mark.usefixtures("guest")
def test_once(command: Command) -> None:
    """Without a terminal it prints once, plain."""
    done = command("top", "--interval", "0.05")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "1 on unmasked 7.0 0 0xffff80000801b2cc R r . R" in rows
    assert re.search(r"vCPU 1 0x100 private-0: handler entered", done.stdout)
    document = json.loads(command("top", "demo", "--json", "--interval", "0.05").stdout)
    fastjsonschema.compile(status_schema.SCHEMA)(document)
    assert document["rates"]["calls"] == [0.0, 7.0]


def test_latencies_of_the_ring(guest: WatchedGuest, command: Command, tmp_path: Path) -> None:
    """From before anybody watched, and by their stages."""
    served = Backend(tmp_path)
    served.boot()
    served.enable(0)
    for _ in range(3):
        served.server.trigger(0, 0)
        assert served.kick() == [0]
        served.call(0, Function.EVENT_COMPLETE, 0)
    ring = served.server.log.ring
    ring.describe(TraceMeta(guest="demo", vcpus=2).document())
    ring.commit()
    (path,) = tmp_path.glob("*ring*")
    shutil.copy(path, guest.directory / rundir.TRACE)
    document = json.loads(command("top", "--json", "--interval", "0.05").stdout)
    fastjsonschema.compile(status_schema.SCHEMA)(document)
    assert document["latency"]["outcomes"] == {"completed": 3}
    assert document["latency"]["stages"]["complete"]["count"] == 3
    shown = command("top", "--once", "--interval", "0.05").stdout
    assert re.search(r"^ trigger to complete +p50 .* of 3$", shown, re.M)
    assert re.search(r"^ trigger to complete:$", shown, re.M)
    assert shown.count("handler entered") == 3


@pytest.mark.parametrize("words", [["--interval", "0"], ["--interval", "nan"], ["nobody"]])
@pytest.mark.usefixtures("guest")
def test_what_cannot_be(command: Command, words: list[str]) -> None:
    done = command("top", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


# ---- events


@pytest.mark.usefixtures("guest")
def test_events(command: Command) -> None:
    done = command("events")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    clock = r"\d\d:\d\d:\d\d\.\d{6}"
    assert re.fullmatch(rf"{clock}  vCPU 1   0x100 private-0     handler entered", lines[0])
    assert re.fullmatch(rf"{clock}  vCPU 1   0x100 private-0     handler completed", lines[1])
    assert re.fullmatch(rf"{clock}  vCPU 0                       power: off", lines[2])
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--limit", "1"], ["power"]),
        (["--limit", "0"], []),
        (["--vcpu", "1"], ["transition", "transition"]),
        (["--event", "0x100", "--limit", "1"], ["transition"]),
        (["--event", "private-0"], ["transition", "transition"]),
        (["--event", "0x101"], []),
        ([], ["transition", "transition", "power"]),
    ],
)
@pytest.mark.usefixtures("guest")
def test_what_is_wanted_of_events(command: Command, words: list[str], shown: list[str]) -> None:
    done = command("events", "demo", "--json", *words)
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == shown
    assert done.returncode == 0


def test_following_events_until_the_guest_ends(guest: WatchedGuest, command: Command) -> None:
    """Nothing is shown twice."""
    polls = 0
    answer = guest.backend.answer

    def more(request: dict[str, Any]) -> bytes | None:
        nonlocal polls
        if request["cmd"] == "trace":
            polls += 1
            if polls >= 4:
                guest.directory.remove()
                return None
            guest.records.append({"time_ns": NOW + polls * 10**6, "type": "reject", "pe": 0, "why": f"{polls}"})
        return answer(request)

    guest.backend.answer = more
    done = command("events", "--follow", "--limit", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("  ")[-1].strip() for line in done.stdout.splitlines()] == [
        "power: off", "rejected: 1", "rejected: 2", "rejected: 3", "guest 'demo' has ended",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--limit", "-1"], ["--vcpu", "-1"], ["--event", "none-such"], ["--limit", "x"]])
@pytest.mark.usefixtures("guest")
def test_events_that_cannot_be(command: Command, words: list[str]) -> None:
    done = command("events", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
