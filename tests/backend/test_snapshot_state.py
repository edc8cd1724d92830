"""The state document of a snapshot, in hidden guest RAM: it comes back, and nothing else that lies there does harm."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.backend.control import snapshot_state, state_document
from qemu_sdei.errors import ProtocolError, SdeiError
from qemu_sdei.monitor import layout
from qemu_sdei.monitor.layout import Word
from qemu_sdei.sdei.constants import Function
from tests.backend.controlled import Backend, Peer
from tests.backend.handed_over import fresh_window, machine, taken
from tests.backend.test_bound import BoundWorld, P

NOTE = {"nonce": "abc123"}


@pytest.fixture
def world(tmp_path: Path) -> BoundWorld:
    """A guest with an event that is enabled, whose state lies in its RAM."""
    world = BoundWorld(tmp_path)
    world.boot()
    world.enable(0, P)
    state = taken(world.server)
    assert snapshot_state.write(world.server.window, state, NOTE) < 4096
    return world


def put(world: BoundWorld, content: bytes) -> None:
    """What a guest could write there: well-formed but for the content."""
    area = world.server.window.kept
    area[: snapshot_state.HEADER.size] = snapshot_state.HEADER.pack(
        snapshot_state.MAGIC, len(content), hashlib.sha256(content).digest()
    )
    area[snapshot_state.HEADER.size : snapshot_state.HEADER.size + len(content)] = content


def test_goes_back(world: BoundWorld) -> None:
    """What was since then is forgotten; calls are counted on from there."""
    server = world.server
    before = taken(server)
    ram = bytes(server.window.ram)
    world.call(0, Function.EVENT_DISABLE, P)
    world.call(0, Function.PE_MASK)
    assert taken(server) != before
    server.window.ram[:] = ram
    assert snapshot_state.take_up(server) == NOTE
    after = taken(server)
    for state in (before, after):  # every CPU is kicked when a state was taken over
        for cpu in state["cpus"]:
            cpu["kick"] = 0
    assert after == before
    world.call(0, Function.EVENT_DISABLE, P)
    assert server.guest.calls[int(Function.EVENT_DISABLE)][0] == 1
    snapshot_state.erase(server.window)
    assert not any(server.window.kept)


def test_one_of_another_moment_is_refused(world: BoundWorld) -> None:
    """As is one that somebody has left there, or made up."""
    server = world.server
    changes: list[Callable[[], object]] = [
        lambda: world.call(0, Function.EVENT_STATUS, 0),
        lambda: server.window.frames[1].__setitem__(Word.X0, server.window.frames[1][Word.X0] + 1),
        lambda: server.window.seq.__setitem__(1, server.window.seq[1] + 1),
        lambda: server.window.kick.__setitem__(0, server.window.kick[0] + 1),
    ]
    for change in changes:
        snapshot_state.write(server.window, taken(server), NOTE)
        change()
        with pytest.raises(ProtocolError, match="not of this moment"):
            snapshot_state.take_up(server)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"),
        (b"\0" * 100, "damaged"),
        (zlib.compress(b"no JSON"), "damaged"),
        (zlib.compress(b"[" * 100_000), "damaged"),
        (zlib.compress(b"9" * 10_000), "damaged"),
        (zlib.compress(b"{}"), "its form"),
        (zlib.compress(json.dumps({"document": 1, "note": {"else": ""}}).encode()), "owner's note"),
        (zlib.compress(json.dumps({"document": 1, "note": {"nonce": "a\r\nb"}}).encode()), "owner's note"),
        (zlib.compress(json.dumps({"document": 1, "note": {"nonce": "a" * 65}}).encode()), "owner's note"),
        (zlib.compress(json.dumps({"document": {"format": "x"}, "note": {}}).encode()), "this is none"),
        (zlib.compress(bytes(state_document.MAX_DOCUMENT + 1)), "8 MiB or more"),
        (zlib.compress(json.dumps({"document": {}, "note": {}}).encode())[:-4], "damaged"),
    ],
)
def test_hostile_content(world: BoundWorld, content: bytes, why: str) -> None:
    put(world, content)
    with pytest.raises(ProtocolError, match=why):
        snapshot_state.take_up(world.server)


def test_damaged_at_any_place(world: BoundWorld) -> None:
    """No byte of it may be another one; nothing but ProtocolError comes of it."""
    area = world.server.window.kept
    good = bytes(area)
    size = snapshot_state.HEADER.size + snapshot_state.HEADER.unpack(good[: snapshot_state.HEADER.size])[1]
    places = random.Random(1)
    for at in [*range(48), *(places.randrange(snapshot_state.HEADER.size, size) for _ in range(200))]:
        area[:] = good
        area[at] ^= 1 << places.randrange(8)
        with pytest.raises(ProtocolError):
            snapshot_state.read(world.server.window)
    area[:] = good
    assert snapshot_state.read(world.server.window)[1] == NOTE


def test_nothing_there() -> None:
    with pytest.raises(ProtocolError, match="was not saved by `snapshot save`"):
        snapshot_state.read(fresh_window(1))


def test_too_large_is_refused() -> None:
    """Before anything is written."""
    window = fresh_window(1)
    noise = random.Random(1).randbytes(layout.KEPT_SIZE).hex()
    with pytest.raises(SdeiError, match="cannot have snapshots, only `save`"):
        snapshot_state.write(window, {"x": noise}, {})
    assert not any(window.kept)


def test_many_cpus_fit() -> None:
    """Each frame full of what does not compress well."""
    noise = random.Random(2)
    cpus = [
        {"seq": 1, "answered": 1, "kick": 0, "frame": [noise.getrandbits(32) for _ in range(40)] + [0] * 88}
        for _ in range(192)
    ]
    assert snapshot_state.write(fresh_window(1), {"cpus": cpus}, NOTE) < layout.KEPT_SIZE


def test_commands_are_for_who_froze_the_guest(tmp_path: Path) -> None:
    backend = Backend(tmp_path)
    backend.boot()
    backend.server.guest.machine = machine(2)
    other, owner = Peer(backend), Peer(backend)
    for command in ("keep", "take-up", "forget"):
        assert other.ask(id=1, cmd=command)["error"]["message"] == "the guest was not frozen by this client"
    assert owner.ask(id=1, cmd="freeze")["ok"]
    assert other.ask(id=1, cmd="keep")["error"]["kind"] == "state"
    assert owner.ask(id=1, cmd="keep", note={"nonce": "?"})["error"]["kind"] == "usage"
    kept_bytes: Any = owner.ask(id=1, cmd="keep", note=NOTE)["result"]["bytes"]
    assert kept_bytes > 100
    assert owner.ask(id=1, cmd="take-up")["result"] == {"note": NOTE}
    backend.server.guest.machine["window_version"] = layout.OLDEST  # a guest with an older monitor
    assert owner.ask(id=1, cmd="keep", note=NOTE)["ok"]
    assert owner.ask(id=1, cmd="take-up")["ok"]
    backend.server.guest.machine = machine(2)
    assert "with another EL3 monitor" in owner.ask(id=1, cmd="take-up")["error"]["message"]
    assert owner.ask(id=1, cmd="forget")["ok"]
    assert "no state document" in owner.ask(id=1, cmd="take-up")["error"]["message"]
