"""Which version of the frame window a guest's monitor is of: what the backend tells it, asks of it, and makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.backend.__main__ import main
from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.loop.server import Server
from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor import image, layout
from qemu_sdei.monitor.layout import Header, Save, Word
from qemu_sdei.sdei.constants import Function
from tests.backend.handed_over import destination, taken
from tests.backend.simulated import SimulatedGuest, records, serve

VERSIONS = range(layout.OLDEST, layout.VERSION + 1)


def booted(directory: Path, version: int) -> tuple[SimulatedGuest, Server]:
    guest = SimulatedGuest(2, directory)
    guest.version = version
    server = guest.server()
    for pe in (1, 0):
        guest.reset(pe)
        serve(server)
        guest.take(pe)
    return guest, server


@pytest.mark.parametrize("version", VERSIONS)
def test_the_monitor_is_told_its_own_version(version: int, tmp_path: Path) -> None:
    """Before each answer to a reset, whatever the guest has written there."""
    guest, server = booted(tmp_path, version)
    header = guest.window.header
    assert (header[Header.MAGIC], header[Header.VERSION], header[Header.SAVE]) == (layout.MAGIC, version, Save.COUNTER)
    header[Header.VERSION], header[Header.SAVE] = 99, layout.MAX_CPUS
    guest.reset(1)
    serve(server)
    assert (header[Header.VERSION], header[Header.SAVE]) == (version, Save.COUNTER)


@pytest.mark.parametrize("version", VERSIONS)
def test_calls_are_answered_and_a_guest_that_ran_before_is_found(version: int, tmp_path: Path) -> None:
    """The first backend has left no journal: what the newest frame is, its SEQ and DONE tell."""
    guest, server = booted(tmp_path, version)
    guest.smc(0, Function.PE_UNMASK)
    serve(server)
    guest.take(0)
    guest.journal_path = tmp_path / "another"
    server = guest.server()
    guest.smc(0, Function.VERSION)
    serve(server)
    assert not guest.waiting(0)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_goes_with_the_guest(version: int, tmp_path: Path) -> None:
    """To a backend that was started again, and to another one with the state document."""
    guest, server = booted(tmp_path, version)
    server.checkpoint()
    again = guest.server()
    again.firmware.machine.monitor = layout.VERSION
    assert again.recover()
    assert again.firmware.machine.monitor == version
    state = taken(server)
    assert state["machine"]["window_version"] == version
    (tmp_path / "there").mkdir()
    there = destination(2, tmp_path / "there")
    state_document.restore(there, state)
    assert (there.firmware.machine.monitor, there.window.header[Header.VERSION]) == (version, version)


@pytest.mark.parametrize("version", [layout.OLDEST - 1, layout.VERSION + 1, True, "4"])
def test_a_document_of_a_monitor_that_is_not_served_is_refused(version: object, tmp_path: Path) -> None:
    state = taken(booted(tmp_path, layout.VERSION)[1])
    state["machine"]["window_version"] = version
    (tmp_path / "there").mkdir()
    with pytest.raises(ProtocolError, match="of another machine: window_version is"):
        state_document.restore(destination(2, tmp_path / "there"), state)


def test_a_reset_of_a_monitor_of_another_version_is_left_alone(tmp_path: Path) -> None:
    """Its words would be taken for others."""
    guest, server = booted(tmp_path, layout.VERSION)
    guest.version = layout.OLDEST
    guest.reset(0)
    serve(server)
    assert server.status()["epoch"] == 1
    assert server.status()["counts"]["rejected"] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_trace_tells_the_counter(version: int, tmp_path: Path) -> None:
    """Of each call and each delivery, where the guest's monitor knows it."""
    guest = SimulatedGuest(1, tmp_path)
    guest.version = version
    server = guest.server()
    guest.reset(0)
    serve(server)
    guest.take(0)
    assert guest.window.header[Header.SAVE] == Save.COUNTER
    posted = []
    for call in (
        (Function.EVENT_REGISTER, 0, 0x4100_0000, 7, 0, 0),
        (Function.EVENT_ENABLE, 0),
        (Function.PE_UNMASK,),
        (Function.EVENT_SIGNAL, 0, 0),
    ):
        guest.smc(0, *call)
        posted.append(guest.counter)
        serve(server)
        guest.take(0)
    found = records(server)
    told = [record["counter"] for record in found if record["type"] == "call"]
    delivered = [record["counter"] for record in found if record.get("cause") == "DISPATCH"]
    if version < layout.COUNTER_SINCE:
        assert {*told, *delivered} == {None}
    else:
        assert (told, delivered) == (posted, posted[-1:])


def test_the_journal_keeps_the_counter(tmp_path: Path) -> None:
    """A service that answers by it answers the same when its call is run again."""
    guest, server = booted(tmp_path, layout.VERSION)
    guest.window.header[Header.SAVE] = Save.COUNTER
    guest.smc(0, Function.PE_UNMASK)
    serve(server)
    *_, (_, pe, _, head, _) = server.journal.records()
    assert pe == 0
    assert head[Word.COUNTER - layout.HEAD.start] == guest.counter > 0


@pytest.mark.parametrize("magic", [b"SDEIMON1", b"SDEIMON3"])
def test_a_backend_for_a_monitor_that_is_not_served_says_so_in_a_line(
    magic: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = GuestConfig(name="g", nr_cpus=1, cpu="max", ram_size=64 << 20, ram_path=str(tmp_path / "ram"))
    (tmp_path / "guest.json").write_text(config.to_json())
    with (tmp_path / "ram").open("wb") as ram:
        ram.truncate(config.ram_size)
    data = bytearray(image.blob())
    data[8:16], data[48:56] = magic, (layout.VERSION + 1).to_bytes(8, "little")
    (tmp_path / "monitor.bin").write_bytes(data)
    assert main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the guest in {tmp_path} cannot be served: its EL3 monitor has frame window" in line
    assert "use the version of qemu-sdei that it was started with" in line
