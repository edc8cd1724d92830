"""Reading along with a ring, whenever somebody asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.sdei.constants import Function
from qemu_sdei.trace.reading import open_trace
from qemu_sdei.trace.ring_follower import RingFollower
from tests.backend.simulated import SimulatedGuest, serve
from tests.trace.test_ring import made, noted


def test_what_is_new_each_time(tmp_path: Path) -> None:
    ring = made(tmp_path / "ring")
    noted(ring, 3)
    follower = RingFollower(tmp_path / "ring")
    assert [record["why"] for record in follower.poll()] == ["number 0", "number 1", "number 2"]
    assert follower.poll() == []
    noted(ring, 2, 3)
    found = follower.poll()
    assert [(record["n"], record["why"]) for record in found] == [(8, "number 3"), (10, "number 4")]
    assert all(record["at_ns"] == record["time_ns"] and record["at_error_ns"] == 0 for record in found)
    follower.close()


def test_what_was_written_over_is_counted(tmp_path: Path) -> None:
    """But not what was gone before anybody looked."""
    ring = made(tmp_path / "ring", 16)
    noted(ring, 100)
    follower = RingFollower(tmp_path / "ring")
    first = follower.poll()
    assert {record["type"] for record in first} == {"reject"}
    assert first[-1]["why"] == "number 99"
    noted(ring, 50, 100)
    missed, *rest = follower.poll()
    assert (missed["type"], missed["count"] + len(rest)) == ("dropped", 50)
    assert rest[-1]["why"] == "number 149"


def test_it_says_what_open_trace_says(tmp_path: Path) -> None:
    """Of a guest's calls and events; record by record, however it was asked."""
    guest = SimulatedGuest(1, tmp_path)
    server = guest.server()
    ring = server.log.ring
    ring.describe({"type": "trace", "version": 1, "vcpus": 1, "client_el": 1, "monitor": 4, "counter_hz": 62_500_000,
                   "started_ns": 0, "realtime_ns": 0})  # fmt: skip
    (path,) = (entry for entry in tmp_path.iterdir() if "ring" in entry.name)
    follower = RingFollower(path)
    found = []
    guest.reset(0)
    serve(server)
    guest.take(0)
    for call in ((Function.EVENT_REGISTER, 0, 0x4300_0000, 0, 0, 0), (Function.EVENT_ENABLE, 0), (Function.PE_UNMASK,),
                 (Function.EVENT_SIGNAL, 0, 0), (Function.EVENT_COMPLETE, 0)):  # fmt: skip
        ring.commit()  # as the loop does before it sleeps
        found += follower.poll()
        guest.smc(0, *call)
        serve(server)
        guest.take(0)
    ring.commit()
    found += follower.poll()
    with open_trace(path) as reading:
        wanted = list(reading.records())

    def facts(record: dict[str, object]) -> dict[str, object]:
        # A later record tells more of when an earlier one was.
        return {name: value for name, value in record.items() if not name.startswith("at_")}

    assert [facts(record) for record in found] == [facts(record) for record in wanted]
    assert any(record["type"] == "transition" and record["cause"] == "DISPATCH" for record in found)


def test_no_ring(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        RingFollower(tmp_path / "none")
    (tmp_path / "noise").write_bytes(b"\x1b" * 100_000)
    with pytest.raises(ProtocolError):
        RingFollower(tmp_path / "noise")
