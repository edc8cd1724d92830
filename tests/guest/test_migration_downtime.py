"""How long a guest stood still, as itself shows it: between two times that it came by in the firmware."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.migration import arrival
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import command, postcopy_works
from tests.guest.remote import Receiving

pytestmark = pytest.mark.guest

_DELAY = 0.5


def options(words: str = "mode=idle", smp: int = 2) -> GuestOptions:
    return GuestOptions(kernel="builtin:bench", append=f"{words} smp={smp}", memory="128M", smp=smp, name="a")


@pytest.mark.timeout(100)
@pytest.mark.parametrize("words", ["mode=idle", "mode=hot count=1000000000", "mode=dirty pages=8"])
def test_it_is_what_the_guest_lost(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle, calling, computing: a take-over that takes its time shows, what comes before and after does not."""
    take_over = arrival.take_over

    async def slowly(*arguments: Any, **more: Any) -> None:
        await asyncio.sleep(_DELAY)
        await take_over(*arguments, **more)

    with Guest(options(words, smp=1)) as guest:
        guest.expect("ready" if "hot" not in words else "")
        quick = guest.migrate(route="shared")
        assert quick.guest_downtime_ms is not None
        assert 0 < quick.guest_downtime_ms < quick.total_ms
        monkeypatch.setattr(arrival, "take_over", slowly)
        for route in (
            ("shared", "live", *(["postcopy"] if postcopy_works() else [])) if "dirty" in words else ("shared",)
        ):
            slow = guest.migrate(route=route)
            assert slow.guest_downtime_ms is not None
            assert 1000 * _DELAY <= slow.guest_downtime_ms < slow.total_ms


@pytest.mark.timeout(100)
def test_a_guest_that_is_paused_shows_none() -> None:
    """Nothing is made up: it gave no sign before, nor after."""
    with Guest(options()) as guest:
        guest.expect("idle: ready")
        guest.qmp("stop")
        assert guest.migrate().guest_downtime_ms is None
        guest.qmp("cont")
        assert guest.inject(0, 0, wait=True, timeout=20).outcome == "completed"
        assert guest.migrate().guest_downtime_ms is not None


@pytest.mark.timeout(100)
def test_it_is_told(runtime: Path) -> None:
    """At the command line, and for another host."""
    with Guest(options()) as guest:
        guest.expect("idle: ready")
        said, _ = command(runtime, "migrate", "a", "b").communicate(timeout=60)
        assert re.search(rb"^  downtime: \d+ ms as the guest shows, \d+ ms as seen from here, ", said, re.MULTILINE), (
            said
        )
        with Receiving(name="c") as there:
            result = guest.migrate_to(there.to)
            assert result.guest_downtime_ms is not None
            assert 0 < result.guest_downtime_ms < result.total_ms
