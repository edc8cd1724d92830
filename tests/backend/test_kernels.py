"""Kernels that come without a reset are counted by a call that Linux makes once as it boots."""

from __future__ import annotations

from pathlib import Path

from qemu_sdei.backend.firmware import Firmware
from qemu_sdei.services.psci import Function as Psci
from tests.backend.simulated import SimulatedBoot, SimulatedGuest, serve


def test_kernels_are_counted_from_each_reset(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    seen: list[tuple[int, int]] = []
    for kernels in (1, 2, 0):
        guest.reset(0)
        serve(server)
        guest.take(0)
        for _ in range(kernels):
            guest.smc(0, Psci.MIGRATE_INFO_TYPE)
            serve(server)
            assert guest.take(0)[3] == 2
        seen.append((server.status()["epoch"], server.status()["kernels"]))
    assert seen == [(1, 1), (2, 2), (3, 0)]
    assert [note[3] for note in server.notes if note[1] == "kernel"] == [{"kernel": 1}, {"kernel": 1}, {"kernel": 2}]


def test_a_new_backend_knows_them(tmp_path: Path) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    for _ in range(3):
        guest.smc(0, Psci.MIGRATE_INFO_TYPE)
        serve(server)
        guest.take(0)
    server = guest.server()
    assert server.recover()
    assert server.status()["kernels"] == 3


def test_a_state_of_before_has_none() -> None:
    firmware = Firmware(1, boot=SimulatedBoot())
    state = firmware.snapshot()
    del state["kernels"]
    firmware.kernels = 5
    firmware.restore(state)
    assert firmware.kernels == 0
