"""How everything stood, from the journal of a backend that is dead or does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei import rundir
from qemu_sdei.backend.loop.last_state import last_state
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import ProtocolError
from qemu_sdei.sdei.constants import Function
from tests.backend.controlled import Backend
from tests.backend.simulated import RAM_BASE


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    config = GuestConfig("g", 2, "cortex-a72", 128 << 20, ram_base=RAM_BASE)
    (tmp_path / rundir.CONFIG).write_text(config.to_json())
    backend = Backend(tmp_path)
    backend.boot()
    backend.start_cpu_1()
    for pe in (0, 1):
        backend.enable(0, pe)
    return backend


@pytest.mark.parametrize("checkpointed", [False, True])
def test_it_is_as_the_backend_knew_it(backend: Backend, tmp_path: Path, checkpointed: bool) -> None:
    backend.server.trigger(0, 1)
    backend.kick()
    backend.server.trigger(0, 1)
    if checkpointed:
        backend.server.checkpoint()
    backend.call(0, Function.PE_MASK)
    before = (tmp_path / rundir.JOURNAL).read_bytes()
    found, status = last_state(tmp_path), backend.server.status()
    for pe, known in zip(found["pes"], status["pes"], strict=True):
        assert {name: known[name] for name in pe if name != "calls"} == {n: pe[n] for n in pe if n != "calls"}
    (event,) = (entry for entry in found["events"] if entry["event"] == 0)
    assert [instance["running"] for instance in event["instances"]] == [False, True]
    assert [instance["pending"] for instance in event["instances"]] == [False, True]
    assert found["pes"][0]["masked"]
    assert (found["epoch"], found["kernels"]) == (1, 0)
    assert (tmp_path / rundir.JOURNAL).read_bytes() == before


def test_a_journal_that_is_damaged_or_missing_is_said(backend: Backend, tmp_path: Path) -> None:
    journal = tmp_path / rundir.JOURNAL
    data = bytearray(journal.read_bytes())
    data[4096 + (4 << 20) + 20] ^= 1
    data[4096 + 20] ^= 1
    journal.write_bytes(data)
    with pytest.raises(ProtocolError):
        last_state(tmp_path)
    journal.unlink()
    with pytest.raises(OSError, match="journal"):
        last_state(tmp_path)
