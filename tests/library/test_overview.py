"""A guest as it is seen from outside: what happens a second, whether it has ended, who says what."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei import rundir, stopped
from qemu_sdei.guest import machine_control
from qemu_sdei.guest.overview import Overview, rates
from tests.cli.watched import WatchedGuest, status


@pytest.fixture
def guest(runtime: Path) -> Iterator[WatchedGuest]:
    found = WatchedGuest()
    yield found
    found.end()


def test_rates_are_counts_over_the_backends_own_clock() -> None:
    before = status()
    after = copy.deepcopy(before)
    after["now_ns"] += 2_000_000_000
    after["pes"][1]["calls"]["SDEI_VERSION"] += 8
    after["events"][0]["instances"][0]["triggers"]["delivered"] += 3
    after["events"][3]["instances"][0]["triggers"]["delivered"] += 5
    assert rates(before, after) == {
        "over_ns": 2_000_000_000, "calls": [0.0, 4.0], "delivered": [1.5, 0.0], "shared_delivered": 2.5,
    }  # fmt: skip


def test_no_rates_where_counts_begin_anew() -> None:
    """Another backend has not counted all calls; of an older one there is no clock."""
    before = status()
    after = copy.deepcopy(before)
    assert rates(before, after) is None, "no time has passed"
    after["now_ns"] += 1
    assert rates(before, after) is not None
    after["pes"][0]["calls"]["SDEI_VERSION"] -= 1
    assert rates(before, after) is None
    del after["now_ns"]
    assert rates(before, after) is None
    assert rates(status(2), status(3)) is None


def test_a_supervisor_that_is_stopped_is_not_waited_for(guest: WatchedGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    with Overview(rundir.find("demo")) as overview:
        assert overview.look()["host"]["vcpus"] == "running"
        monkeypatch.setattr(stopped, "is_stopped", lambda pid: True)
        monkeypatch.setattr(machine_control, "run_state", lambda *_: pytest.fail("it was asked"))
        assert overview.look()["host"]["vcpus"] is None


def test_the_end_of_a_guest_is_seen_also_where_the_next_one_has_its_name(guest: WatchedGuest) -> None:
    with Overview(rundir.find("demo")) as overview:
        overview.look()
        assert not overview.ended
        guest.end()
        assert overview.ended
        following = WatchedGuest()
        try:
            assert overview.ended
        finally:
            following.end()
