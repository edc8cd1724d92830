"""What is walked of a migration: its ways, where each step of them can fail, and a guest that goes one without QEMU."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from qemu_sdei.migration.failure_points import POINTS, Left, Stage, left
from qemu_sdei.migration.options import COPY, LIVE, POSTCOPY, SHARED, Hold, MigrationOptions, Step
from qemu_sdei.migration.sequence import Sequence
from tests.migration.fakes import LIMIT, FakeBackend, FakeDestination, FakeSide, Trip


@dataclass(frozen=True)
class Way:
    """A route, and what else decides about the order of things."""

    route: str
    remote: bool = False
    hold: bool = False

    @property
    def early(self) -> bool:
        return self.route in (LIVE, POSTCOPY) or (self.route == SHARED and not self.hold)

    @property
    def stages(self) -> list[Stage]:
        """The steps that it has, by the table."""
        not_now = Stage.HOLD if self.early else Stage.SEND
        return [
            stage
            for stage, point in POINTS.items()
            if self.route in (point.remote if self.remote else point.local) and stage is not not_now
        ]

    def __str__(self) -> str:
        return "-".join([self.route, *["remote"] * self.remote, *["hold"] * self.hold])


WAYS = [
    *(Way(route, hold=hold) for route in (SHARED, COPY, LIVE, POSTCOPY) for hold in (False, True)),
    *(Way(route, remote=True, hold=hold) for route in (COPY, LIVE) for hold in (False, True)),
]


def places(stage: Stage, way: Way) -> Iterator[tuple[str, int]]:
    """Where a step can fail: places of `Trip`, and which time they are come by."""
    signs = [] if way.hold else [("backend signs", 1)]
    held = [("backend hold", 1), ("backend held", 1)] if way.hold else []
    asked = 0 if way.hold and not way.early else 1
    paused = [("qmp migrate-set-capabilities", 1), ("qmp stop", 1), ("qmp query-status", 1 + asked), *signs]
    yield from {
        Stage.CONNECT: [],  # a test of its own
        Stage.HOLD: held,
        Stage.PREPARE: [("destination prepare", 1)],
        Stage.SEND: [
            *(("backend hello", 1), ("qmp query-status", 1), ("qmp migrate-set-capabilities", 1)),
            *(("qmp migrate-set-parameters", 1), ("qmp migrate", 1), ("qmp query-migrate", 1), *signs, *held),
        ],
        Stage.PAUSE: [("backend freeze", 1), *([] if way.early else paused)],
        Stage.COMPARE: [("destination compare_early", 1)],
        Stage.CHECK: [("destination check", 1)],
        Stage.SWITCHOVER: [("qmp migrate-continue" if way.early else "qmp migrate", 1)],
        Stage.ARRIVE: [("destination arrived", 1)],
        Stage.VERIFY: [("destination verify", 1)],
        Stage.RESTORE: [("destination restore", 1)],
        Stage.HISTORY: [("destination take_history", 1)],
        Stage.GO: [("destination go", 1)],
        Stage.ANNOUNCE: [("backend moved", 1)],
        Stage.CONFIRM: [("destination confirm", 1)],
        Stage.FETCH: [("destination complete", 1)],
    }[stage]
    if way.early and stage is (Stage.COMPARE if way.route == POSTCOPY else Stage.PAUSE):
        yield "backend hello", 2  # was it reset meanwhile?


WALK = [(way, stage, *place) for way in WAYS for stage in way.stages for place in places(stage, way)]


def name(value: object) -> str:
    """A parameter's part of a test's name."""
    return value.value if isinstance(value, Stage) else str(value)


walk = pytest.mark.parametrize(("way", "stage", "place", "nth"), WALK, ids=name)


@dataclass
class World:
    """A guest at the source, and a sequence to move it by."""

    path: Path
    way: Way
    trip: Trip = field(default_factory=Trip)
    running: bool = True
    verify: bool = True
    stages: list[Stage] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        way = self.way
        home = self.path / "a"
        home.mkdir()
        self.source = FakeSide(home, self.trip, running=self.running)
        self.backend = FakeBackend(home, self.trip)
        self.destination = FakeDestination(self.trip, self.source, remote=way.remote)
        hold = Hold("running", timeout=LIMIT) if way.hold else None
        options = MigrationOptions(way.route, hold=hold, timeout=LIMIT, verify=self.verify)
        self.sequence = Sequence(self.source, self.destination, options, self._report)
        self.trip.look = self._look

    def _report(self, step: Step) -> None:
        if step.phase not in self.phases[-1:]:
            self.phases.append(step.phase)

    def _look(self) -> None:
        if self.sequence.stage not in self.stages[-1:]:
            self.stages.append(self.sequence.stage)

    def do(self, what: Callable[[], Awaitable[None]]) -> None:
        """Do `what` while the backend takes connections."""

        async def inside() -> None:
            await self.backend.open()
            try:
                async with asyncio.timeout(LIMIT):
                    await what()
            finally:
                self.trip.release.set()
                self.backend.close()

        asyncio.run(inside())

    async def check(self, what: Left) -> None:
        """The guest is where `what` says."""
        source, destination = self.source, self.destination
        assert destination.closed or what is Left.UNTOUCHED
        at_source, at_destination = {
            Left.UNTOUCHED: (self.running, False),
            Left.SOURCE: (self.running, False),
            Left.DESTINATION: (False, self.running),
            Left.UNDECIDED: (False, False),
            Left.LOST: (False, self.running and not destination.abandoned),
        }[what]
        assert (source.running, destination.running) == (at_source, at_destination)
        if what is Left.UNDECIDED:
            assert self.backend.frozen, "the freeze has ended"
            assert not destination.abandoned
            return
        self.trip.release.set()
        async with asyncio.timeout(LIMIT):
            while self.backend.clients:
                await asyncio.sleep(0)
        if what is Left.UNTOUCHED:
            assert not source.leaving
            assert not source.resumed
            assert "cont" not in source.heard
            assert not destination.abandoned
        elif what is Left.SOURCE:
            assert source.resumed
            assert not source.leaving
            assert destination.abandoned
        elif what is Left.DESTINATION:
            assert source.leaving
            assert not destination.abandoned

    def expected(self, stage: Stage, error: BaseException) -> Left:
        """What the table says; after a postcopy was begun QEMU decides."""
        what = left(stage, error, self.way.route)
        if what is Left.SOURCE_OR_LOST:
            return Left.LOST if self.source.refuses_cont else Left.SOURCE
        return what
