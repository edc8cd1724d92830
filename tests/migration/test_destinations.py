"""The two destinations that there are, without QEMU: on this host, and on another one with the receiver's own code.

The sequence itself is walked in test_sequence.py; here each thing that such a destination asks its QEMU and backend for
fails once, and the guest is where the table says. Ways between hosts are unix sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, SdeiError, UsageError
from qemu_sdei.migration import destination_remote
from qemu_sdei.migration.destination_local import LocalDestination
from qemu_sdei.migration.failure_points import Left, LostInPostcopyError, Stage, UndecidedError, left
from qemu_sdei.migration.options import COPY, LIVE, POSTCOPY, ROUTES, SHARED, TCP, MigrationOptions, no_report
from qemu_sdei.migration.sequence import Sequence
from tests.guest.remote import Way as Cable
from tests.migration.fakes import Trip
from tests.migration.hosts import BASE, ERROR, KERNEL, SIZE, WINDOW, Pair, do, receiving, remote

# ---- on this host


def local(pair: Pair, options: MigrationOptions) -> Sequence[Any]:
    destination = LocalDestination(
        pair.source,
        pair.there,
        options,
        no_report,
        start_timeout=1,
        ram_fds=(pair.ram[0], pair.ram[1]),
        ram_range=range(BASE, BASE + SIZE),
        window=range(BASE + WINDOW.start, BASE + WINDOW.stop),
    )
    return Sequence(pair.source, destination, options, no_report)


@pytest.mark.parametrize("transport", ["unix", TCP])
@pytest.mark.parametrize("route", ROUTES)
def test_to_another_qemu_on_this_host(route: str, transport: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, Trip(), shared=route == SHARED)

    async def move() -> None:
        result = await local(pair, MigrationOptions(route, transport=transport)).run()
        pair.check(Left.DESTINATION)
        assert pair.same
        # The page of the window is written anew, and not counted.
        assert result.pages_differing == (1 if route in (COPY, LIVE) else None)
        assert result.guest_downtime_ms is not None
        assert (pair.there.path / rundir.STATE).exists() is False
        (told,) = pair.backends[0].told
        assert (told["name"], told["control"]) == ("b", str(pair.there.path / rundir.CONTROL))

    do(pair, move)


@dataclass(frozen=True)
class Case:
    """Something that a destination asks for fails."""

    stage: Stage
    place: str
    routes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.stage.value}: {self.place}"


LOCAL = [
    Case(Stage.PREPARE, "there start", ROUTES),
    Case(Stage.PREPARE, "there query-version", (POSTCOPY,)),
    Case(Stage.PREPARE, "there migrate-set-capabilities", ROUTES),
    Case(Stage.PREPARE, "there getfd", ROUTES),
    Case(Stage.PREPARE, "there migrate-incoming", ROUTES),
    Case(Stage.CHECK, "there backend check", ROUTES),
    Case(Stage.ARRIVE, "there query-migrate", ROUTES),
    Case(Stage.RESTORE, "there human-monitor-command", (POSTCOPY,)),
    Case(Stage.RESTORE, "there backend restore", ROUTES),
    Case(Stage.GO, "there inherit", ROUTES),
    Case(Stage.GO, "there cont", ROUTES),
    Case(Stage.CONFIRM, "there backend first-sign", ROUTES),
    Case(Stage.FETCH, "there backend arrived", (POSTCOPY,)),
]


@pytest.mark.parametrize(("case", "route"), [(case, route) for case in LOCAL for route in case.routes], ids=str)
def test_what_fails_on_this_host(case: Case, route: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, Trip(case.place, ERROR), shared=route == SHARED)

    async def move() -> None:
        sequence = local(pair, MigrationOptions(route))
        what = left(case.stage, ERROR, route)
        if what is Left.DESTINATION:
            assert (await sequence.run()).guest_downtime_ms is None
        else:
            with pytest.raises(SdeiError) as caught:
                await sequence.run()
            assert sequence.stage is case.stage
            what = Left.LOST if what is Left.SOURCE_OR_LOST else what
            assert isinstance(caught.value, LostInPostcopyError) == (what is Left.LOST)
            assert ("it broke" in str(caught.value)) == (what is not Left.LOST or case.stage is Stage.FETCH)
        pair.check(what)
        assert pair.there.was_given_back == ("quit" in pair.there.heard or pair.there.killed)
        # In shared RAM a backend that lives on would answer the calls that the guest makes at the source.
        let_go = [message["name"] for message in pair.backends[1].told]
        assert let_go == ["a"] * (route == SHARED and what is Left.SOURCE and case.stage in (Stage.RESTORE, Stage.GO))

    do(pair, move)


@pytest.mark.parametrize("route", [SHARED, COPY, LIVE])
def test_a_destination_that_runs_and_cannot_say_so_is_killed(route: str, tmp_path: Path) -> None:
    """Its answer to `cont` is lost with its QMP, so that `quit` would not reach it: never do both run."""
    pair = Pair(tmp_path, Trip(), shared=route == SHARED)
    pair.there.answers_cont = False

    async def move() -> None:
        with pytest.raises(SdeiError, match="QMP has broken"):
            await local(pair, MigrationOptions(route)).run()
        assert pair.there.killed
        pair.check(Left.SOURCE)

    do(pair, move)


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [
        ((11, 1), (11, 1), "postcopy is not for QEMU 11.1.0 fake: 10.0 is the last"),
        ((7, 2), (10, 0), "the guest runs in QEMU 7.2.0 fake, the other one is 10.0.0 fake"),
    ],
)
def test_postcopy_that_would_lose_the_guest(
    here: tuple[int, int], there: tuple[int, int], words: str, tmp_path: Path
) -> None:
    pair = Pair(tmp_path, Trip(), shared=False)

    def version(major: int, minor: int) -> Callable[[], dict[str, Any]]:
        return lambda: {"qemu": {"major": major, "minor": minor, "micro": 0}, "package": "fake"}

    pair.source._query_version = version(*here)  # type: ignore[method-assign]
    pair.there._query_version = version(*there)  # type: ignore[method-assign]

    async def move() -> None:
        with pytest.raises(UsageError, match=words):
            await local(pair, MigrationOptions(POSTCOPY)).run()
        pair.check(Left.UNTOUCHED)

    do(pair, move)


def test_no_room_for_the_document(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Trip(), shared=True)
    (pair.there.path / rundir.STATE).mkdir()

    async def move() -> None:
        with pytest.raises(GuestError, match="the state document could not be handed over: Is a directory"):
            await local(pair, MigrationOptions()).run()
        pair.check(Left.SOURCE)

    do(pair, move)


# ---- on another host


@pytest.mark.parametrize("route", [COPY, LIVE])
def test_to_another_host(route: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, Trip(), shared=False)

    async def move() -> None:
        async with receiving(pair) as (place, path):
            result = await remote(pair, path, route).run()
            pair.check(Left.DESTINATION)
            assert pair.same
            assert bytes(pair.there.received) == b"QEVM"
            assert (place.printed, place.typed, place.identity) == (b"hello\n", b"typed", "0" * 32)
            assert place.kernel.path.read_bytes() == KERNEL
            assert (result.pages_differing, result.files_sent) == (1, len(KERNEL))
            assert (result.route, result.host, result.destination) == ("unix", f"unix:{path}", "b")
            assert result.guest_downtime_ms is not None
            (told,) = pair.backends[0].told
            assert (told["name"], told["control"]) == (f"b at unix:{path}", "")
            assert not (pair.source.path / "leaving.sock").exists()

    do(pair, move)


REMOTE = [
    Case(Stage.PREPARE, "there start", (COPY, LIVE)),
    Case(Stage.PREPARE, "there migrate-set-capabilities", (COPY, LIVE)),
    Case(Stage.PREPARE, "there migrate-incoming", (COPY, LIVE)),
    Case(Stage.CHECK, "there backend check", (COPY, LIVE)),
    Case(Stage.ARRIVE, "there query-migrate", (COPY, LIVE)),
    Case(Stage.RESTORE, "there backend restore", (COPY, LIVE)),
    Case(Stage.GO, "there cont", (COPY, LIVE)),
    Case(Stage.CONFIRM, "there backend first-sign", (COPY, LIVE)),
]


@pytest.mark.parametrize(("case", "route"), [(case, route) for case in REMOTE for route in case.routes], ids=str)
def test_what_fails_on_another_host(case: Case, route: str, tmp_path: Path) -> None:
    """The other host's words are told, and it waits for the next guest: which comes."""
    pair = Pair(tmp_path, Trip(case.place, ERROR), shared=False)

    async def move() -> None:
        async with receiving(pair) as (place, path):
            what = left(case.stage, ERROR, route)
            sequence = remote(pair, path, route)
            if what is Left.DESTINATION:
                assert (await sequence.run()).guest_downtime_ms is None
                pair.check(what)
                return
            with pytest.raises(SdeiError, match="it broke"):
                await sequence.run()
            assert sequence.stage is case.stage
            pair.check(what)
            assert place.abandoned == 1
            place.kernel.path.unlink()
            await remote(pair, path, route).run()
            pair.check(Left.DESTINATION)

    do(pair, move)


def cuts() -> Iterator[Any]:
    """How the connection breaks when the last word is said, and what is known of the guest then."""

    def lost(cable: Cable) -> Callable[[bytes], bytes | None]:
        return lambda data: None if b'"cmd": "go"' in data else data

    def lost_for_good(cable: Cable) -> Callable[[bytes], bytes | None]:
        def look(data: bytes) -> bytes | None:
            cable.closed = cable.closed or b'"cmd": "go"' in data
            return None if cable.closed else data

        return look

    def unanswered(cable: Cable) -> Callable[[bytes], bytes | None]:
        def look(data: bytes) -> bytes | None:
            cable.mute = cable.mute or b'"cmd": "go"' in data
            return data

        return look

    yield pytest.param(lost, Left.SOURCE, "has cancelled", id="it did not arrive, and the other host says so")
    yield pytest.param(lost_for_good, Left.UNDECIDED, "--resume", id="nobody says whether it arrived")
    yield pytest.param(unanswered, Left.DESTINATION, "", id="it arrived, and the other host says so")


@pytest.mark.parametrize(("cut", "what", "words"), [*cuts()])
def test_the_connection_breaks_at_the_last_word(
    cut: Callable[[Cable], Callable[[bytes], bytes | None]],
    what: Left,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(destination_remote, "_INQUIRE", 2.0)
    pair = Pair(tmp_path, Trip(), shared=False)

    async def move() -> None:
        async with receiving(pair) as (_, path):
            with Cable(tmp_path / "cable", f"unix:{path}") as cable:
                cable.look = cut(cable)
                sequence = remote(pair, tmp_path / "cable", COPY)
                if what is Left.DESTINATION:
                    await sequence.run()
                    pair.check(what)
                    return
                with pytest.raises(UndecidedError if what is Left.UNDECIDED else GuestError, match=words):
                    await sequence.run()
                pair.check(what)
                if what is Left.UNDECIDED:
                    await sequence.take_back()
                    pair.check(Left.SOURCE)

    do(pair, move)


def test_cancelled_while_ram_goes_to_another_host(tmp_path: Path) -> None:
    pair = Pair(tmp_path, Trip("qmp migrate-continue"), shared=False)

    async def move() -> None:
        async with receiving(pair) as (_, path):
            task = asyncio.ensure_future(remote(pair, path, LIVE).run())
            await pair.trip.reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            pair.check(Left.SOURCE)
            assert not (pair.source.path / "leaving.sock").exists()

    do(pair, move)
