"""Hold points: what is "so" on which vCPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.backend.loop.hold_points import HoldPoint
from tests.backend.controlled import SHARED, Backend


@pytest.mark.parametrize(("on", "other"), [(0, 1), (1, 0)])
def test_a_shared_event_runs_on_one_of_them(tmp_path: Path, on: int, other: int) -> None:
    backend = Backend(tmp_path)
    backend.boot()
    backend.start_cpu_1()
    backend.enable(SHARED, on)
    backend.server.trigger(SHARED, on)
    backend.kick()
    firmware = backend.server.firmware
    assert firmware.dispatcher.status()["pes"][on]["running"] == [SHARED]
    assert HoldPoint("running", SHARED, on).reached(firmware)
    assert not HoldPoint("running", SHARED, other).reached(firmware)
    backend.server.trigger(SHARED, on)
    assert HoldPoint("running-pending", SHARED, on).reached(firmware)
    assert not HoldPoint("running-pending", SHARED, other).reached(firmware)
