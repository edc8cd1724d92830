"""KVM's pseudo registers: ids and sizes of the ABI; what is read is what is so; what is written holds or is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.backend.control.kvm_regs import BY_ID, REGISTERS, read, write
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.sdei.constants import Function
from tests.backend.simulated import serve
from tests.backend.test_bound import HANDLER, BoundWorld

IDS = {register.name: register.id for register in REGISTERS}


@pytest.fixture
def world(tmp_path: Path) -> BoundWorld:
    """Event 0 is registered and enabled on CPU 0."""
    world = BoundWorld(tmp_path)
    world.boot()
    assert world.x0(0, Function.EVENT_REGISTER, 0, HANDLER, 0x77, 0, 0) == 0
    assert world.x0(0, Function.EVENT_ENABLE, 0) == 0
    return world


def registers(world: BoundWorld, pe: int = 0) -> dict[str, list[int]]:
    found = read(world.server.firmware.dispatcher.snapshot(), pe)
    return {BY_ID[number].name: words for number, words in found.items()}


def put(world: BoundWorld, **values: list[int]) -> None:
    """Write registers of CPU 0 in a backend that serves."""
    snapshot = world.server.firmware.dispatcher.snapshot()
    world.server.replace_sdei(write(snapshot, 0, {IDS[name]: words for name, words in values.items()}))


def test_ids() -> None:
    """Those of the series' include/uapi/asm/kvm.h."""
    assert IDS["SDEI_EVENT_HANDLER_0"] == 0x6040_0000_0014_0004
    assert IDS["SDEI_EVENT_HANDLER_3"] == 0x6040_0000_0014_0007
    assert IDS["SDEI_EVENT_REGISTERED"] == 0x6030_0000_0014_0008
    assert IDS["SDEI_EVENT_PENDING"] == 0x6030_0000_0014_000B
    assert IDS["SDEI_EVENT_CONTEXT"] == 0x6080_0000_0014_000C
    assert IDS["SDEI_PE_STATE"] == 0x6030_0000_0014_000D


def test_read(world: BoundWorld) -> None:
    found = registers(world)
    assert found["SDEI_EVENT_HANDLER_0"] == [HANDLER, 0x77]
    assert (found["SDEI_EVENT_REGISTERED"], found["SDEI_EVENT_ENABLED"], found["SDEI_EVENT_RUNNING"]) == ([1], [1], [0])
    assert found["SDEI_EVENT_CONTEXT"] == [0] * 32
    context = world.guest.window.contexts[0].tolist()
    world.call(0, Function.EVENT_SIGNAL, 0, 0)
    found = registers(world)
    assert found["SDEI_EVENT_RUNNING"] == [1]
    assert found["SDEI_EVENT_CONTEXT"][:2] == [context[0] + 4, context[1]]
    assert registers(world, 1)["SDEI_EVENT_REGISTERED"] == [0]


def test_written_back_is_the_same(world: BoundWorld) -> None:
    world.call(0, Function.EVENT_SIGNAL, 0, 0)
    before: Any = world.server.firmware.dispatcher.snapshot()
    after = write(copy.deepcopy(before), 0, read(before, 0))
    assert after == before


def test_pending_is_delivered(world: BoundWorld) -> None:
    """As by KVM: writing it asks for delivery, masked or not; unmasking by PE_STATE too."""
    put(world, SDEI_PE_STATE=[1])
    put(world, SDEI_EVENT_PENDING=[0b11])
    assert registers(world)["SDEI_EVENT_PENDING"] == [1], "there is no event 1"
    world.kicks()
    assert not world.in_handler(0, 0)
    put(world, SDEI_PE_STATE=[0])
    world.kicks()
    assert world.in_handler(0, 0)
    assert registers(world)["SDEI_EVENT_RUNNING"] == [1]


def test_a_handler_that_was_written_completes_into_its_context(world: BoundWorld) -> None:
    context = [0x4123_4560, 0x3C5, *range(100, 118), *[0] * 12]
    put(world, SDEI_EVENT_RUNNING=[1], SDEI_EVENT_CONTEXT=context)
    world.call(0, Function.EVENT_COMPLETE, 0)
    assert world.guest.window.contexts[0].tolist() == context[:20]


@pytest.mark.parametrize(
    "values",
    [
        {"SDEI_EVENT_REGISTERED": [0]},  # enabled and not registered
        {"SDEI_EVENT_RUNNING": [1], "SDEI_EVENT_CONTEXT": [0, 0xD, *[0] * 30]},  # a context of EL3
        {"SDEI_EVENT_CONTEXT": [1] * 32},  # nothing runs
        {"SDEI_EVENT_ENABLED": [0, 0]},
        {"SDEI_PE_STATE": [1 << 64]},
    ],
)
def test_what_cannot_be_changes_nothing(world: BoundWorld, values: dict[str, list[int]]) -> None:
    before = world.server.firmware.snapshot()
    with pytest.raises((UsageError, ProtocolError)):
        put(world, **values)
    assert world.server.firmware.snapshot() == before
    serve(world.server)


def test_unregistered_and_registered_again(world: BoundWorld) -> None:
    put(world, SDEI_EVENT_REGISTERED=[0], SDEI_EVENT_ENABLED=[0])
    assert registers(world)["SDEI_EVENT_HANDLER_0"] == [0, 0]
    with pytest.raises(UsageError, match="has no handler yet"):
        put(world, SDEI_EVENT_REGISTERED=[1])
    put(world, SDEI_EVENT_HANDLER_0=[HANDLER, 1], SDEI_EVENT_REGISTERED=[1], SDEI_EVENT_HANDLER_2=[1, 1])
    assert world.x0(0, Function.EVENT_STATUS, 0) == 1


def test_one_by_one_in_the_order_of_their_ids(world: BoundWorld) -> None:
    """As a VMM restores a vCPU: KVM_SET_ONE_REG for each register of the list."""
    world.call(0, Function.EVENT_SIGNAL, 0, 0)
    before = world.server.firmware.dispatcher.snapshot()
    saved = read(before, 0)
    put(world, SDEI_EVENT_REGISTERED=[0], SDEI_EVENT_ENABLED=[0], SDEI_EVENT_RUNNING=[0], SDEI_PE_STATE=[1])
    aside: dict[int, list[int]] = {}
    for register in REGISTERS:
        snapshot = world.server.firmware.dispatcher.snapshot()
        world.server.replace_sdei(write(snapshot, 0, {register.id: saved[register.id]}, aside))
        assert read(world.server.firmware.dispatcher.snapshot(), 0, aside)[register.id] == saved[register.id]
    assert world.server.firmware.dispatcher.snapshot() == before
    assert not aside.get(0)
