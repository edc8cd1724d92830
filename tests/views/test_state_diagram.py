"""The state diagram has the transitions of the state table, and shows which a trace visited."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_sdei.sdei.transitions import STATES, STEP, Action
from qemu_sdei.views.moments import Moments
from qemu_sdei.views.state_diagram import ARROWS, Visits, diagram
from tests.views.pages import Page
from tests.views.sample import Writer

CHANGES = sorted(
    (state, STEP[action][state][1], action.name)
    for action in Action
    for state in STATES
    if STEP[action][state][1] != state
)


def visits(*records: dict[str, Any]) -> Visits:
    found, moments = Visits(), Moments()
    for record in records:
        found.add(moments.moment(record))
    return found


def arrows(drawn: str) -> dict[str, str]:
    return {a["data-arrow"] or "": a["class"] or "" for _, a in Page(drawn).elements if "data-arrow" in a}


def test_each_change_of_the_table_is_drawn_once() -> None:
    assert sorted(arrows(diagram(Visits()))) == sorted(f"{old}-{new}" for old, new in ARROWS)
    assert {(old, new) for old, new, cause in CHANGES if cause != "PE_RESET"} == set(ARROWS)


@pytest.mark.parametrize(("old", "new", "cause"), CHANGES)
def test_what_was_visited_is_coloured(old: int, new: int, cause: str) -> None:
    write = Writer()
    found = visits(*(write.transition(0, 0, old, new, cause) for _ in range(3)))
    assert not found.odd
    drawn = diagram(found)
    coloured = [name for name, kind in arrows(drawn).items() if "visited" in kind]
    states = {
        a["data-state"] for _, a in Page(drawn).elements if "visited" in (a.get("class") or "") and "data-state" in a
    }
    if cause == "PE_RESET":
        assert coloured == []
        assert "reset 3 ×" in Page(drawn).text
        assert str(old) in states
    else:
        assert coloured == [f"{old}-{new}"]
        assert f"{cause} ×3" in Page(drawn).text or "×3" in Page(drawn).text
        assert states == {str(old), str(new)}


def test_a_transition_that_the_table_does_not_have() -> None:
    write = Writer()
    found = visits(write.transition(0, 0, 0, 7, "DISPATCH"), write.transition(0, 0, 3, 1, "ENABLE"))
    assert list(found.odd) == ["unregistered → running by DISPATCH", "enabled → registered by ENABLE"]
    assert not [name for name, kind in arrows(diagram(found)).items() if "visited" in kind]


def test_one_event_can_be_looked_at() -> None:
    write = Writer()
    found = visits(write.transition(0, 0, 0, 1, "REGISTER"), write.transition(0, 0x103, 1, 3, "ENABLE"))
    assert found.document() == {"0x0": {"0-1": 1}, "0x103": {"1-3": 1}}
