"""Room for guests among processes of pytest: who may start, in which order, and what a killed process leaves."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.pytest_plugin.room import FOLDER, Claim, Room, has_room
from tests.guest.guests import left, runtime_directory

LIMIT = 30.0
GB = 1 << 30


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with runtime_directory() as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
        yield path


@given(
    wanted=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12),
    cores=st.integers(1, 8),
    memory=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_nobody_has_too_much_or_waits_for_ever(
    wanted: list[tuple[int, int]], cores: int, memory: int, seed: int
) -> None:
    """Whatever guests want and in whichever order they end: they start in the order in which they came, and run beside
    others only within what there is.
    """
    chosen = random.Random(seed)
    claims = [Claim(*each, number) for number, each in enumerate(wanted, 1)]
    started = []
    while claims:
        ready = [claim for claim in claims if not claim.running and has_room(claims, claim, cores, memory, None)]
        if ready:
            assert len(ready) == 1
            claims[claims.index(ready[0])] = replace(ready[0], running=True)
            started.append(ready[0].number)
        else:
            running = [claim for claim in claims if claim.running]
            assert running, "somebody goes on"
            claims.remove(chosen.choice(running))
        running = [claim for claim in claims if claim.running]
        if len(running) > 1:
            assert sum(claim.cores for claim in running) <= cores
            assert sum(claim.memory for claim in running) <= memory
    assert started == sorted(started) == list(range(1, len(wanted) + 1))


def test_memory_that_is_not_free_is_waited_for() -> None:
    other, mine = Claim(1, GB, 1, running=True), Claim(1, GB, 2)
    assert has_room([other, mine], mine, 8, 8 * GB, GB)
    assert not has_room([other, mine], mine, 8, 8 * GB, GB - 1)
    assert has_room([mine], mine, 8, 8 * GB, GB - 1), "alone, its start says what is wrong"


def test_one_after_the_other_where_there_is_room_for_one(runtime: Path) -> None:
    order: list[str] = []
    first = Room(2, GB)
    with first.taken(2, 1) as there:
        assert there
        waits = threading.Thread(target=_run, args=(order, "second"))
        waits.start()
        with first.taken(2, 1) as another:
            assert another, "a process that has a guest does not wait for room"
        order.append("first")
    waits.join(LIMIT)
    assert order == ["first", "second"]
    assert not left(runtime)


def _run(order: list[str], name: str) -> None:
    with Room(2, GB, longest=LIMIT).taken(2, 1) as there:
        assert there
        order.append(name)


def test_who_has_waited_too_long_starts_all_the_same(runtime: Path) -> None:
    with Room(2, GB).taken(2, 1), Room(2, GB, longest=0.1).taken(2, 1) as there:
        assert not there
    assert not left(runtime)


def _hold(connection: Connection) -> None:
    with Room(2, GB).taken(2, 1):
        connection.send("there")
        connection.recv()


def test_a_process_that_is_killed_gives_its_room_back(runtime: Path) -> None:
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_hold, args=(there,))
    process.start()
    assert here.poll(LIMIT)
    assert process.pid is not None
    with pytest.raises(AssertionError), Room(2, GB, longest=0.1).taken(2, 1) as room:
        assert room, "it holds it"
    os.kill(process.pid, signal.SIGKILL)
    process.join(LIMIT)
    with Room(2, GB, longest=LIMIT).taken(2, 1) as room:
        assert room
    assert not left(runtime)


@pytest.mark.parametrize("text", ["", "[]", '{"cores": "many"}', "{" * 5000, '{"cores": 1, "memory": null}'])
def test_a_claim_that_is_damaged_is_nobodys_trouble(runtime: Path, text: str) -> None:
    with Room(2, GB).taken(2, 1):
        (path,) = (runtime / "qemu-sdei" / FOLDER).iterdir()
        path.write_text(text)
        with Room(2, GB, longest=LIMIT).taken(2, 1) as there:
            assert there
    assert not left(runtime)
