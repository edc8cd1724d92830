"""The table of where a guest is, walked: each way through it, and what whoever finds the directory then can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei import rundir
from qemu_sdei.errors import SdeiError, UsageError
from qemu_sdei.vm.place import FACTS, ROWS, Disk, Event, Place, Row, State, found

ELSEWHERE = "ssh://there/b"


def describe(directory: Path) -> None:
    (directory / rundir.RUN).write_text("{}")


class Host:
    """Two places on this host, as a migration has them."""

    def __init__(self, path: Path) -> None:
        self.directories = [path / "source", path / "destination"]
        for directory in self.directories:
            directory.mkdir(parents=True)
        self.source = Place(self.directories[0], describe)
        self.destination = Place(self.directories[1], describe, arriving=True)

    def do(self, place: Place, event: Event) -> None:
        place.on(
            event,
            where=ELSEWHERE if event in (Event.TELL, Event.FIND) else "",
            other=self.destination if place is self.source else self.source,
        )


def ways() -> dict[State | None, list[Event]]:
    """The shortest way to each state of a guest that was started here, and not found."""
    found: dict[State | None, list[Event]] = {None: []}
    queue: list[State | None] = [None]
    while queue:
        state = queue.pop(0)
        for row in ROWS:
            if row.state is state and row.next not in found and row.event not in (Event.ADOPT, Event.FIND):
                found[row.next] = [*found[state], row.event]
                queue.append(row.next)
    return found


def reach(path: Path, state: State | None) -> tuple[Host, Place]:
    """A host one of whose places is in `state`."""
    host = Host(path)
    if state in (State.ARRIVING, State.ARRIVED):
        for event in (Event.BOOT, Event.LEAVE):
            host.do(host.source, event)
        if state is State.ARRIVED:
            host.do(host.source, Event.HAND_OVER)
            host.do(host.destination, Event.TAKE)
        return host, host.destination
    for event in ways()[state]:
        host.do(host.source, event)
        if event is Event.HAND_OVER:
            host.do(host.destination, Event.TAKE)
    return host, host.source


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.state and row.state.value}: {row.event.name}")
def test_each_row_leaves_on_disk_what_its_state_says(tmp_path: Path, row: Row) -> None:
    host, place = reach(tmp_path, row.state)
    if row.event is Event.TAKE_BACK:
        host.do(host.destination, Event.GIVE_BACK)
    host.do(place, row.event)
    assert place.state is row.next
    directory = host.directories[0 if place is host.source else 1]
    if row.event in (Event.HAND_OVER, Event.GIVE_BACK):
        return  # the file goes with the other place's step
    facts = place.facts
    if facts.described is not None and row.event is not Event.ADOPT:
        assert (directory / rundir.RUN).exists() is facts.described
    if row.event not in (Event.FIND, Event.RELEASE):
        known, where = found(directory)
        assert known is bool(facts.handover)
        assert (where or None) == (ELSEWHERE if facts.handover == "where" else None)


def test_every_state_can_be_reached_and_left() -> None:
    assert {state for state in ways() if state} | {State.ARRIVING, State.ARRIVED} == set(FACTS) == set(State)
    assert {row.state for row in ROWS} >= set(State) - {State.GONE}
    assert len({(row.state, row.event) for row in ROWS}) == len(ROWS)


def test_a_guest_is_never_in_two_directories(tmp_path: Path) -> None:
    """By one step it goes there, and back."""
    host, _ = reach(tmp_path, State.MOVED)
    holders = [directory.name for directory in host.directories if (directory / rundir.RUN).exists()]
    assert holders == ["destination"]
    assert found(host.directories[1]) == (True, "")  # whoever finds it there has it run on
    host.do(host.destination, Event.GIVE_BACK)
    host.do(host.source, Event.TAKE_BACK)
    host.do(host.source, Event.RETURN)
    holders = [directory.name for directory in host.directories if (directory / rundir.RUN).exists()]
    assert holders == ["source"]
    assert found(host.directories[0]) == (False, None)


def test_another_host_is_not_told_what_cannot_be_noted(tmp_path: Path) -> None:
    """Whoever found the guest here would have it run twice."""
    host, place = reach(tmp_path, State.LEAVING)
    marker = host.directories[0] / rundir.HANDOVER
    marker.unlink()
    marker.mkdir()
    with pytest.raises(OSError, match="directory"):
        place.on(Event.TELL, where=ELSEWHERE)
    assert place.state is State.LEAVING


def test_what_cannot_happen_is_said(tmp_path: Path) -> None:
    _, place = reach(tmp_path, State.UNDECIDED)
    with pytest.raises(SdeiError, match="the guest is undecided: 'it is paused, to be written down' cannot happen"):
        place.on(Event.LEAVE)
    assert (place.state, place.where) == (State.UNDECIDED, ELSEWHERE)


def test_a_guest_that_nobody_could_adopt_is_not_booted(tmp_path: Path) -> None:
    def full(_: Path) -> None:
        raise UsageError("no room")

    place = Place(tmp_path, full)
    with pytest.raises(UsageError, match="no room"):
        place.on(Event.BOOT)
    assert place.state is None


def test_a_full_disk_ends_no_guest_that_runs(tmp_path: Path) -> None:
    host, place = reach(tmp_path, State.LEAVING)
    (host.directories[0] / rundir.RUN).unlink()

    def full(_: Path) -> None:
        raise UsageError("no room")

    arriving = Place(tmp_path / "third", full, arriving=True)
    arriving.on(Event.RETURN)
    assert arriving.state is State.HERE
    place.on(Event.RETURN)
    assert (host.directories[0] / rundir.RUN).exists()


def test_the_table_uses_all_that_it_declares() -> None:
    assert {row.disk for row in ROWS} == set(Disk)
    assert {row.event for row in ROWS} == set(Event)
