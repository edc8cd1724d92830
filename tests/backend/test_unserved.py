"""Calls that come to nothing still end with the delivery of what is due, and a new backend must know of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.sdei.constants import Function
from qemu_sdei.smccc.ids import Owner
from qemu_sdei.smccc.service import Call, FunctionRange, Service
from tests.backend.simulated import SimulatedGuest, serve

HANDLER = 0x4300_0000


class Broken(Service):
    """A user's service with a bug."""

    name = "broken"
    ranges = (FunctionRange(Owner.OEM, 0, 15),)

    def call(self, call: Call) -> int:
        raise ZeroDivisionError


@pytest.mark.parametrize("function", [0xC400_0033, 0xC300_0001], ids=["unserved", "failing"])
def test_a_delivery_after_it_survives_the_backend(tmp_path: Path, function: int) -> None:
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server((Broken(),))
    guest.reset(0)
    serve(server)
    guest.take(0)
    for call in (
        (Function.EVENT_REGISTER, 0x100, HANDLER, 0, 0, 0),
        (Function.EVENT_ENABLE, 0x100),
        (Function.PE_UNMASK,),
    ):
        guest.smc(0, *call)
        serve(server)
        assert guest.take(0)[3] == 0
    server.trigger(0x100, 0)
    guest.smc(0, function)
    serve(server)
    assert guest.take(0)[1] == HANDLER
    other = guest.server((Broken(),))
    assert other.recover()
    assert other.firmware.snapshot() == server.firmware.snapshot()
