"""Every failure point of a migration, by every route that has it, without QEMU: where the guest is afterwards.

The fakes see to it that the guest never runs at both sides, and that the destination is ended before the source goes
on. What is left is what the table says from which the documentation is printed (`failure_points.POINTS`).
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import BusyError, GuestError, LostGuestError, SdeiError, StandsStillError, UnreachableError
from qemu_sdei.migration.failure_points import POINTS, Left, LostInPostcopyError, Stage, UndecidedError, left
from qemu_sdei.migration.options import COPY, LIVE, POSTCOPY, SHARED
from tests.migration.fakes import Trip
from tests.migration.ways import WALK, WAYS, Way, World, name, places, walk

ERROR = GuestError("it broke")


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("running", [True, False])
def test_a_guest_moves(way: Way, running: bool, tmp_path: Path) -> None:
    """By the steps that the table names, in their order; one that was paused arrives paused."""
    world = World(tmp_path, way, running=running)

    async def move() -> None:
        result = await world.sequence.run()
        await world.check(Left.DESTINATION)
        assert result.destination == "b"
        assert result.route == way.route
        assert result.document == 2
        assert result.pages_differing == (4 if way.route in (COPY, LIVE) else None)
        assert result.passes == (3 if way.route in (LIVE, POSTCOPY) else 0)
        assert (result.transferred, result.qemu_downtime_ms, result.qemu_total_ms) == (90, 5, 7)
        assert result.guest_downtime_ms == (5.0 if running else None)
        assert world.destination.whole == (way.route == POSTCOPY)
        (told,) = world.backend.told
        assert (told["name"], told["control"]) == world.destination.whereabouts

    world.do(move)
    # Nothing is done of a step before it is connected; a guest without a hold point has none to reach.
    assert world.stages == [
        stage for stage in way.stages if stage is not Stage.CONNECT and (way.hold or stage is not Stage.HOLD)
    ]


@pytest.mark.parametrize(
    ("way", "stage", "place", "nth", "lets"),
    [
        (way, stage, place, nth, lets)
        for way, stage, place, nth in WALK
        for lets in (False, True)[: 2 if way.route == POSTCOPY and POINTS[stage].postcopy else 1]
    ],
    ids=name,
)
def test_a_step_fails(way: Way, stage: Stage, place: str, nth: int, lets: bool, tmp_path: Path) -> None:
    """The guest is where the table says. `lets`: the source's QEMU goes on after a postcopy was begun."""
    world = World(tmp_path, way, Trip(place, ERROR, nth))
    world.source.lets_go_on = lets

    async def move() -> None:
        if POINTS[stage].leaves is Left.DESTINATION:
            result = await world.sequence.run()
            # A downtime that nobody could tell is not made up.
            assert (result.guest_downtime_ms is None) == (stage is Stage.CONFIRM)
            await world.check(Left.DESTINATION)
            return
        with pytest.raises(SdeiError) as caught:
            await world.sequence.run()
        assert world.sequence.stage is stage
        what = world.expected(stage, caught.value)
        assert str(caught.value).endswith("has gone" if what is Left.LOST and stage is not Stage.FETCH else "it broke")
        assert isinstance(caught.value, LostInPostcopyError) == (what is Left.LOST)
        await world.check(what)

    world.do(move)


@walk
def test_cancelled(way: Way, stage: Stage, place: str, nth: int, tmp_path: Path) -> None:
    """Whoever cancels ends it at any step, up to the one that gives the guest away: that one and what follows is
    brought to its end.
    """
    world = World(tmp_path, way, Trip(place, None, nth))

    async def move() -> None:
        task = asyncio.ensure_future(world.sequence.run())
        await world.trip.reached.wait()
        assert world.sequence.stage is stage
        task.cancel()
        if POINTS[stage].late:
            await asyncio.sleep(0)
            world.trip.release.set()
            await task
            await world.check(Left.DESTINATION)
            assert world.destination.whole == (way.route == POSTCOPY)
            return
        error: BaseException = asyncio.CancelledError()
        try:
            await task
        except (asyncio.CancelledError, LostInPostcopyError) as caught:
            error = caught
        what = world.expected(stage, error)
        assert isinstance(error, LostInPostcopyError) == (what is Left.LOST)
        await world.check(what)

    world.do(move)


def test_every_step_of_every_way_is_walked() -> None:
    assert set(POINTS) == set(Stage)
    for way in WAYS:
        for stage in way.stages:
            assert stage is Stage.CONNECT or (stage is Stage.HOLD and not way.hold) or [*places(stage, way)]


def test_the_backend_is_not_there(tmp_path: Path) -> None:
    world = World(tmp_path, Way(SHARED))

    async def move() -> None:
        world.backend.close()
        world.backend.path.unlink(missing_ok=True)  # since Python 3.13 asyncio removes it itself
        with pytest.raises(LostGuestError, match="does not answer"):
            await world.sequence.run()
        assert world.sequence.stage is Stage.CONNECT
        await world.check(left(Stage.CONNECT, ERROR, SHARED))

    world.do(move)


def test_cancelled_while_the_backend_takes_no_connection(tmp_path: Path) -> None:
    world = World(tmp_path, Way(SHARED))

    async def move() -> None:
        world.backend.open_full()
        task = asyncio.ensure_future(world.sequence.run())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await world.check(left(Stage.CONNECT, ERROR, SHARED))

    asyncio.run(move())
    world.backend.close()


@pytest.mark.parametrize("way", [way for way in WAYS if way.remote], ids=str)
def test_nobody_knows_whether_it_runs_there(way: Way, tmp_path: Path) -> None:
    """It is paused at the source until somebody who knows says so."""
    world = World(tmp_path, way, Trip("destination go", UndecidedError("it does not say")))

    async def move() -> None:
        with pytest.raises(UndecidedError, match="it does not say"):
            await world.sequence.run()
        await world.check(left(Stage.GO, UndecidedError(""), way.route))
        world.destination.abandoned = True  # as its user has seen
        await world.sequence.take_back()
        await world.check(Left.SOURCE)

    world.do(move)


@pytest.mark.parametrize("way", [way for way in WAYS if not way.hold], ids=str)
def test_a_paused_guest_stays_paused(way: Way, tmp_path: Path) -> None:
    world = World(tmp_path, way, Trip("destination restore", ERROR), running=False)
    world.source.lets_go_on = True

    async def move() -> None:
        with pytest.raises(GuestError, match="it broke"):
            await world.sequence.run()
        await world.check(Left.SOURCE)
        assert "cont" not in world.source.heard

    world.do(move)


@pytest.mark.parametrize(
    ("route", "verify", "comparable", "fails"),
    [
        (SHARED, False, True, False),
        (LIVE, True, True, False),
        (LIVE, False, True, True),
        (POSTCOPY, True, True, False),
        (POSTCOPY, True, False, True),
        (POSTCOPY, False, True, True),
    ],
)
def test_a_reset_while_ram_is_sent(route: str, verify: bool, comparable: bool, fails: bool, tmp_path: Path) -> None:
    """QEMU does not see what is loaded: where RAM is not compared, the guest must not go on with the half of it."""
    world = World(tmp_path, Way(route), verify=verify)
    world.destination.comparable = comparable
    look = world.trip.look

    def reset() -> None:
        look()
        world.backend.boots = 1 if world.trip.passed.count("backend hello") < 2 else 2

    world.trip.look = reset

    async def move() -> None:
        with pytest.raises(GuestError, match="was reset while") if fails else contextlib.nullcontext():
            await world.sequence.run()
        await world.check(Left.SOURCE if fails else Left.DESTINATION)

    world.do(move)


@pytest.mark.parametrize("way", [Way(SHARED), Way(COPY), Way(LIVE), Way(POSTCOPY)], ids=str)
def test_the_sources_qemu_cannot_be_reached(way: Way, tmp_path: Path) -> None:
    """The guest is paused until it can be; then it goes on by itself."""
    world = World(tmp_path, way, Trip("destination check"))

    async def move() -> None:
        task = asyncio.ensure_future(world.sequence.run())
        await world.trip.reached.wait()
        world.source.gone = UnreachableError("no way to QMP")
        world.trip.error = ERROR
        task.cancel()
        with pytest.raises(StandsStillError, match="as soon as its QEMU can be reached"):
            await task
        assert not world.source.running
        world.source.gone = None
        while not world.source.running:
            await asyncio.sleep(0.01)
        await world.check(Left.SOURCE)

    world.do(move)


@pytest.mark.parametrize("way", [Way(SHARED), Way(POSTCOPY)], ids=str)
def test_the_sources_qemu_is_gone(way: Way, tmp_path: Path) -> None:
    """Its end is the end of the guest; what went wrong before is what is said."""
    world = World(tmp_path, way, Trip("destination check"))

    async def move() -> None:
        task = asyncio.ensure_future(world.sequence.run())
        await world.trip.reached.wait()
        world.source.gone = LostGuestError("QEMU has ended")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.destination.abandoned

    world.do(move)


def test_cancelled_on_the_way_back(tmp_path: Path) -> None:
    """The way back is brought to its end, however often it is cancelled."""
    world = World(tmp_path, Way(COPY), Trip("qmp cont"))
    world.source.other = lambda: world.destination.running

    async def broken(document: Path) -> None:
        raise ERROR

    world.destination.check = broken  # type: ignore[method-assign]

    async def move() -> None:
        task = asyncio.ensure_future(world.sequence.run())
        await world.trip.reached.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        world.trip.release.set()
        with pytest.raises(GuestError, match="it broke"):
            await task
        await world.check(Left.SOURCE)

    world.do(move)


@pytest.mark.parametrize("has_fetched", [True, False])
def test_qmp_is_gone_while_ram_is_fetched(has_fetched: bool, tmp_path: Path) -> None:
    """Whether QEMU is gone too, the destination sees: it has all RAM, or never will."""
    world = World(tmp_path, Way(POSTCOPY))
    world.destination.has_fetched = has_fetched
    look = world.trip.look

    def gone() -> None:
        look()
        if world.sequence.stage is Stage.FETCH:
            world.source.gone = UnreachableError("QMP is gone")

    world.trip.look = gone

    async def move() -> None:
        if has_fetched:
            assert (await world.sequence.run()).transferred == 0
            await world.check(Left.DESTINATION)
        else:
            with pytest.raises(LostInPostcopyError, match=r"went on as 'b'.*could not be fetched: QMP is gone"):
                await world.sequence.run()
            assert world.destination.whole is False

    world.do(move)


@pytest.mark.parametrize(("way", "early"), [(Way(LIVE), True), (Way(COPY, hold=True), False)], ids=str)
def test_a_service_has_micro_operations_in_flight(way: Way, early: bool, tmp_path: Path) -> None:
    """Where QEMU has stopped it, the guest is resumed, and whoever asked hears why: it can be tried again."""
    world = World(tmp_path, way, Trip("backend freeze", BusyError("a service is busy")))

    async def move() -> None:
        with pytest.raises(BusyError, match="a service is busy"):
            await world.sequence.run()
        await world.check(Left.SOURCE)

    world.do(move)


def test_a_guest_that_is_stopped_first_runs_on_for_such_a_moment(tmp_path: Path) -> None:
    world = World(tmp_path, Way(COPY), Trip("backend freeze", BusyError("a service is busy")))

    async def move() -> None:
        await world.sequence.run()
        await world.check(Left.DESTINATION)
        assert world.source.heard.count("stop") == 2

    world.do(move)


def test_qemus_own_words(tmp_path: Path) -> None:
    world = World(tmp_path, Way(LIVE))

    def failed(**_: Any) -> dict[str, Any]:
        return {"status": "failed", "error-desc": "no room"}

    world.source._query_migrate = failed  # type: ignore[method-assign]

    async def move() -> None:
        with pytest.raises(GuestError, match=r"^QEMU's migration has failed: no room$"):
            await world.sequence.run()
        await world.check(Left.SOURCE)

    world.do(move)
