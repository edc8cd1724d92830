"""`qemu-sdei status` of a guest whose backend answers what the test says."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import fastjsonschema
import pytest

from qemu_sdei.cli.status_view import head
from qemu_sdei.guest import status_schema
from tests.cli.conftest import Command
from tests.cli.watched import NOW, WatchedGuest, instance, source, status

fits = fastjsonschema.compile(status_schema.SCHEMA)


@pytest.fixture
def guest(runtime: Path) -> Iterator[WatchedGuest]:
    found = WatchedGuest()
    yield found
    found.end()


@pytest.mark.usefixtures("guest")
def test_what_people_see(command: Command) -> None:
    done = command("status")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("guest 'demo': running, ")
    assert "boot 1 began 3 min 12 s ago" in lines[0]
    assert lines[1] == "2 vCPUs cortex-a72, 1G, builtin:bench"
    assert re.fullmatch(r"processes: no supervisor, backend 24742 \(3 min 13 s old\)", lines[2])
    rows = [" ".join(line.split()) for line in lines]
    assert "0 0x0 on 3 min 13 s masked 1010" in rows
    assert "vCPU 0 runs the handler of 0x101 (private-1) for 4.0 s" in rows
    assert "1 SDEI_EVENT_COMPLETE EL1h 0xffff80000801b2cc" in rows
    assert "0x100 private-0 private normal 0 enabled 4.0 s" in rows
    assert "0x200 shared-a shared critical 1 (shared) running 4.0 s" in rows


def test_why_an_event_is_pending(guest: WatchedGuest, command: Command) -> None:
    guest.status["events"][0]["instances"][1] = instance(3, 1, pending=True)
    shown = command("status").stdout
    assert "enabled, pending" in shown
    assert "pending: event waits: PE 1 is masked\n" in shown


def test_error_sources_and_why_an_error_could_not_be_reported(guest: WatchedGuest, command: Command) -> None:
    slow = {"notify": "polled", "poll_ms": 500, "event": None, "type": "ghes", "read_ack": None, "state": "unread"}
    reason = "the event is not registered"
    line = {"notify": "interrupt", "interrupt": 100, "event": None}
    guest.status["sources"] = [
        source(ready=False, reason=reason), source(id=7, name="slow", **slow), source(id=8, name="line", **line),
    ]  # fmt: skip
    shown = command("status").stdout
    rows = [" ".join(row.split()) for row in shown.splitlines()]
    assert "0 memory ghes-v2 event 0x200 4096 free" in rows
    assert "7 slow ghes polled, 500 ms 4096 unread" in rows
    assert "8 line ghes-v2 interrupt 100 4096 free" in rows
    assert f"source 'memory': {reason}" in rows
    fits(json.loads(command("status", "--json").stdout))


def test_json_is_of_the_form_that_is_documented(guest: WatchedGuest, command: Command) -> None:
    done = command("status", "--json", "--registers", "1")
    document = json.loads(done.stdout)
    fits(document)
    assert document["host"]["vcpus"] == "running"
    assert document["registers"]["vcpu"] == 1
    assert (document["registers"]["values"]["EL"], document["registers"]["values"]["X30"]) == ("EL1h", 30)
    guest.machine.status = "paused"
    assert command("status").stdout.startswith("guest 'demo': paused, ")


def test_each_field_is_needed() -> None:
    """The schema says what the documents in these tests have: no more, and no less."""
    fits(status())
    for name in ("pes", "counts", "now_ns"):
        document = status()
        del document[name]
        with pytest.raises(fastjsonschema.JsonSchemaException):
            fits(document)
    with pytest.raises(fastjsonschema.JsonSchemaException):
        fits(status(more=1))


@pytest.mark.usefixtures("guest")
def test_registers(command: Command) -> None:
    shown = command("status", "--registers", "0").stdout
    assert "Registers of vCPU 0 now\nnZCv DAIF EL1h\n" in shown
    assert re.search(r"^pc  +ffff80000801b2c8  sp  +0000000000000010  x0  +0{16}$", shown, re.M)
    assert re.search(r"^x28 +000000000000001c  x29  000000000000001d  x30  000000000000001e$", shown, re.M)
    done = command("status", "--registers", "2")
    assert (done.returncode, done.stderr) == (2, "qemu-sdei: error: there is no vCPU 2: this guest has 2\n")


KALLSYMS = """\
ffff800008000000 T _text
ffff80000801b2c0 T __sdei_handler
ffff80000801b300 T next_one
ffff800009000000 T _etext
"""


@pytest.mark.usefixtures("guest")
def test_symbols(command: Command, tmp_path: Path) -> None:
    """Of the user's; the registers' PC too."""
    (tmp_path / "kallsyms").write_text(KALLSYMS)
    words = ("status", "--symbols", f"{tmp_path}/kallsyms@0xffff800008000000", "--registers", "0")
    shown = command(*words).stdout
    assert re.search(r"^1 +SDEI_EVENT_COMPLETE +EL1h +__sdei_handler\+0xc/0x40$", shown, re.M)
    assert "nZCv DAIF EL1h, at __sdei_handler+0x8/0x40" in shown
    document = json.loads(command(*words, "--json").stdout)
    fits(document)
    assert document["pes"][1]["pc_symbol"] == "__sdei_handler+0xc/0x40"
    assert document["registers"]["pc_symbol"] == "__sdei_handler+0x8/0x40"
    once = command("top", "--once", "--interval", "0.05", *words[1:3]).stdout
    assert "__sdei_handler+0xc/0x40" in once
    done = command("status", "--symbols", str(tmp_path / "none"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    "words", [["--watch", "0"], ["--watch", "nan"], ["--watch", "x"], ["--registers", "-1"], ["--registers", "x"]]
)
def test_what_cannot_be(command: Command, words: list[str]) -> None:
    done = command("status", *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_without_a_name(command: Command, runtime: Path) -> None:
    """The only guest that runs needs none."""
    done = command("status")
    assert (done.returncode, done.stderr) == (2, "qemu-sdei: error: no guest is running\n")
    first, second = WatchedGuest("a"), WatchedGuest("b")
    try:
        done = command("status")
        assert (done.returncode, done.stderr) == (2, "qemu-sdei: error: which guest? There run a, b: name one\n")
        second.end()
        assert command("status").returncode == 0
    finally:
        first.end()
        second.end()


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_until_the_guest_ends(guest: WatchedGuest, command: Command, as_json: bool) -> None:
    """The second look has rates; the guest's end is the end, and no error."""
    looks = 0
    answer = guest.backend.answer

    def counted(request: dict[str, object]) -> bytes | None:
        nonlocal looks
        looks += request["cmd"] == "status"
        if looks >= 3:  # it asks again until the run directory is gone
            if looks == 3:
                threading.Thread(target=guest.end).start()
            return None
        return answer(request)

    guest.backend.answer = counted
    done = command("status", "demo", "--watch", "0.05", *(["--json"] if as_json else []))
    assert (done.returncode, done.stderr) == (0, "")
    if as_json:
        first, second = map(json.loads, done.stdout.splitlines())
        fits(first)
        fits(second)
        assert first["rates"] is None
        assert second["rates"]["calls"] == [0.0, 7.0]
    else:
        assert done.stdout.splitlines()[-1] == "guest 'demo' has ended"
        assert "calls  calls/s  events/s" in done.stdout


def test_a_backend_of_an_older_version(guest: WatchedGuest, command: Command) -> None:
    """It says less; the rest is shown."""
    for name in ("now_ns", "started_ns", "reset_ns", "client_el"):
        guest.status.pop(name)
    guest.status["pes"] = [
        {name: pe[name] for name in ("pe", "affinity", "on", "masked", "running", "power", "calls")}
        for pe in guest.status["pes"]
    ]
    for event in guest.status["events"]:
        for one in event["instances"]:
            for name in ("state", "waits", "since_ns"):
                one.pop(name)
    answer = guest.backend.answer

    def older(request: dict[str, object]) -> bytes | None:
        guest.status["now_ns"] = 0
        data = answer(request)
        if request["cmd"] != "status" or data is None:
            return data
        message = json.loads(data)
        del message["result"]["now_ns"]
        return json.dumps(message).encode() + b"\n"

    guest.backend.answer = older
    done = command("status", "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "private-0" in done.stdout
    assert "boot 1" in done.stdout.splitlines()[0]


def test_a_guest_without_supervisor() -> None:
    document = status()
    document["host"] |= {"supervisor_pid": None, "vcpus": None, "qemu_up_ns": None}
    lines = list(head(document))
    assert lines[0] == "guest 'demo': boot 1 began 3 min 11 s ago"
    assert lines[2].startswith("processes: no supervisor, QEMU 24712, ")
    assert document["now_ns"] == NOW
