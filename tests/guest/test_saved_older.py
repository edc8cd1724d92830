"""Guests that older versions of this program have saved (saved/README.md) go on here, and can be moved on."""

from __future__ import annotations

import json
import os
import re
import signal
import tarfile
from pathlib import Path

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.monitor.image import version_of
from tests.guest.guests import check_nothing_left, storm_ended, until
from tests.guest.other_releases import corpus_goes_on

pytestmark = pytest.mark.guest

CORPUS = Path(__file__).parent / "saved"
FORMER, PRESENT = "1-window-3", "2-window-4"
LIMIT = 30.0

JOURNEY = """\
journey: critical: status 7 critical 7 runs 3 0
journey: after the critical one: status 7 critical 3 runs 3 1
journey: in the handler: context 37ab4a6f70b7e546 at PC
journey: before the critical one: status 7 critical 3 runs 4 1
journey: waits for event 0x103
journey: after the critical one: status 7 critical 3 runs 4 1
journey: all done: status 3 critical 3 runs 4 1
journey: ok
"""
"""What it prints from where it was saved; PC is where that version of the guest was interrupted."""


def saved(commit: str, what: str, scratch: Path) -> Path:
    """A saved guest, unpacked."""
    with tarfile.open(CORPUS / f"{commit}-{what}.tar.xz") as archive:
        archive.extractall(scratch)  # ours: no need of a filter, which early 3.11 has not
    (found,) = scratch.iterdir()
    return found


def restorable(commit: str, what: str, scratch: Path) -> Path:
    """The same; the test is skipped where this QEMU does not take it."""
    corpus_goes_on()
    return saved(commit, what, scratch)


def test_the_corpus_is_what_it_says(tmp_path: Path) -> None:
    versions = []
    for file in sorted(CORPUS.glob("*.tar.xz")):
        commit, _, what = file.name.removesuffix(".tar.xz").rpartition("-")
        path = saved(commit, what, tmp_path / file.name)
        document = json.loads((path / "state.json").read_bytes())
        meta = json.loads((path / "saved.json").read_bytes())
        monitor = version_of((path / "monitor.bin").read_bytes())
        versions.append((what, meta["version"], document["version"], document["machine"]["window_version"], monitor))
    assert versions == [("idle", 2, 2, 3, 3), *((what, 2, 2, 4, 4) for what in ("idle", "journey", "storm"))]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("commit", [FORMER, pytest.param(PRESENT, marks=pytest.mark.slow)])
def test_goes_on_by_every_route(commit: str, runtime: Path, tmp_path: Path) -> None:
    """Events on both CPUs, counted on from where it was; also after its backend was killed, and after a reset."""
    handled = 5 + 3

    def works(guest: Guest) -> None:
        nonlocal handled
        for vcpu in range(2):
            assert guest.inject(0, vcpu, wait=True, timeout=LIMIT).outcome == "completed"
            handled += 1
        counts = guest.status()["counts"]
        assert (counts["delivered"], counts["completed"], counts["rejected"]) == (handled, handled, 0)

    with Guest.saved(restorable(commit, "idle", tmp_path / "old"), name="a", trust=True) as guest:
        works(guest)
        for name, route in (("b", "live"), ("c", "shared"), ("d", "copy"), ("e", "postcopy")):
            assert guest.migrate(name, route=route).destination == name
            works(guest)
        guest.save(tmp_path / "again", end=True)
        guest.wait_off(LIMIT)
    with Guest.saved(tmp_path / "again", name="a") as guest:
        works(guest)
        assert guest.backend_pid is not None
        os.kill(guest.backend_pid, signal.SIGKILL)
        until("another backend", lambda: guest.backend_starts == 2)
        works(guest)
        guest.migrate("f", route="live")
        works(guest)
        printed = guest.console.count("idle: ready")
        guest.reset()
        until("it boots again", lambda: guest.console.count("idle: ready") > printed)
        until("both CPUs are ready", lambda: _enabled(guest) == 2)
        assert guest.status()["epoch"] == 2
        works(guest)
        guest.migrate("g")
        works(guest)
    check_nothing_left(runtime)


def _enabled(guest: Guest) -> int:
    """How many CPUs have event 0 registered and enabled."""
    (event,) = (event for event in guest.status()["events"] if event["event"] == 0)
    return sum(one["enabled"] for one in event["instances"])


@pytest.mark.timeout(60)
def test_amid_a_handler_with_an_event_pending(runtime: Path, tmp_path: Path) -> None:
    """It prints what one prints that was never saved, wherever it was in between."""
    with Guest.saved(restorable(PRESENT, "journey", tmp_path / "old"), name="a", trust=True) as guest:
        before = guest.console
        assert before.endswith("waits for event 0x103\n")
        guest.migrate("b")
        guest.migrate("c", route="copy")
        guest.save(tmp_path / "again", end=True)
        guest.wait_off(LIMIT)
    with Guest.saved(tmp_path / "again", name="a") as guest:
        guest.migrate("b", route="live")
        assert [vcpu["power"] for vcpu in guest.status()["pes"]] == ["on", "off"]
        guest.inject(0x103, 0)
        assert guest.wait_off(LIMIT).guest
        assert re.sub("at 4020[0-9a-f]{4}", "at PC", guest.console.removeprefix(before)) == JOURNEY
    check_nothing_left(runtime)


@pytest.mark.slow
@pytest.mark.timeout(100)
def test_amid_a_storm(runtime: Path, tmp_path: Path) -> None:
    """Each call is answered once, each signal handled once: the guest looks itself."""
    with Guest.saved(restorable(PRESENT, "storm", tmp_path / "old"), name="a", trust=True) as guest:
        for name, route in (("b", "shared"), ("c", "copy")):
            guest.migrate(name, route=route)
            calls = guest.status()["counts"]["calls"]
            until("it goes on", lambda n=calls: guest.status()["counts"]["calls"] > n)
        guest.save(tmp_path / "again")
        storm_ended(guest)
        assert re.search(r"^storm: ok calls=\d+ handled=[1-9]\d*$", guest.console, re.MULTILINE)
    with Guest.saved(tmp_path / "again", name="a") as guest:
        storm_ended(guest)
        assert re.search(r"^storm: ok calls=\d+ handled=[1-9]\d*$", guest.console, re.MULTILINE)
    check_nothing_left(runtime)
