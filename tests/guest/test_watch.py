"""`status`, `top` and `events` of a bare-metal guest, as a user sees them at a terminal and in a pipe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from qemu_sdei.guest import status_schema
from tests.cli.full_terminal import LEAVE, terminal
from tests.guest.guests import LIMIT, check_nothing_left, command, until

pytestmark = pytest.mark.guest

IDLE = ("--kernel", "builtin:bench", "--append", "mode=idle smp=2", "--memory", "128M", "--name", "watched")


def said(runtime: Path, *words: str) -> str:
    with command(runtime, *words) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b""), err
    return out.decode()


def document(runtime: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(runtime, "status", "--json", *words))
    fastjsonschema.compile(status_schema.SCHEMA)(found)
    return found


@pytest.mark.timeout(120)
def test_a_guest_that_is_watched(runtime: Path) -> None:
    with command(runtime, "run", "-q", *IDLE) as owner:
        assert owner.stdout is not None
        until("the guest is ready", lambda: b"idle: ready" in owner.stdout.readline())
        with command(runtime, "events", "--follow", "--event", "0") as follower:
            look_at_status(runtime, owner.pid)
            use_top(runtime)
            watch_it_end(runtime)
            out, err = follower.communicate(timeout=LIMIT)
        assert (follower.returncode, err) == (0, b"")
        *lines, last = out.decode().splitlines()
        assert last == "guest 'watched' has ended"
        what = [re.split("  +", line)[-1] for line in lines if "  vCPU 1  " in line]
        assert [words for words in what if words in ("registered", "enabled")] == ["registered", "enabled"]
        injected = what.index("triggered by the host: it is pending")
        assert what[injected + 1 : injected + 3] == ["handler entered", "handler completed"]
        assert sum(words.startswith("triggered by the host: it is pending") for words in what) == 2
    check_nothing_left(runtime)


def look_at_status(runtime: Path, owner: int) -> None:
    """Nothing has to be looked up, and each of its processes is named."""
    found = document(runtime, "--registers", "1")
    assert (found["host"]["supervisor_pid"], found["host"]["vcpus"]) == (owner, "running")
    assert None not in (found["host"]["qemu_pid"], found["host"]["backend_pid"], found["reset_ns"])
    assert found["started_ns"] < found["reset_ns"] < found["now_ns"]
    assert found["host"]["qemu_up_ns"] > found["now_ns"] - found["reset_ns"] - 20_000_000
    registers = found["registers"]["values"]
    assert len(registers) == 35
    assert registers["EL"] == "EL1h"
    assert 0x4020_0000 <= registers["PC"] < 0x4800_0000
    assert [pe["last_call"] for pe in found["pes"]].count("SDEI_PE_UNMASK") >= 1
    (software,) = (event for event in found["events"] if event["event"] == 0)
    assert [instance["state"] for instance in software["instances"]] == ["enabled", "enabled"]
    assert all(found["reset_ns"] < instance["since_ns"] < found["now_ns"] for instance in software["instances"])
    shown = said(runtime, "status")
    assert re.search(r"^guest 'watched': running, up \d.*, boot 1 began .* ago$", shown, re.M)
    assert re.search(r"^0x0 +software +private +normal +1 +enabled +\d", shown, re.M)


def use_top(runtime: Path) -> None:
    """Inject, pause, see that nothing is delivered then, resume."""
    with terminal() as top:
        top.until("event 0x0 (software), private, normal: enabled")
        top.screen.send("\x1b[B")
        top.until(">1")
        top.screen.send("i")
        top.until("event 0x0 on vCPU 1: handler entered after ")
        top.until("handler completed")
        top.screen.send("p")
        top.until("PAUSED")
        assert document(runtime)["host"]["vcpus"] == "paused"
        top.screen.send("i")
        top.until("event 0x0 on vCPU 1: queued; the guest is paused")
        top.until("pending: ")
        top.screen.send("p")
        top.until("the guest is running now")
        until("it is delivered now", lambda: document(runtime)["counts"]["completed"] == 2)
        top.screen.setwinsize(60, 200)
        top.until("last went on at")
        top.screen.send("q")
        assert top.end() == 0


def watch_it_end(runtime: Path) -> None:
    """The guest's end is the end of `top`, and no error; the terminal is the user's again."""
    with terminal() as top:
        top.until("arrows choose")
        said(runtime, "stop", "watched")
        assert top.end() == 0
        assert "guest 'watched' has ended" in top.seen[top.seen.rindex(LEAVE) :]
