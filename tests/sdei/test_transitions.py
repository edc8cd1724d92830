"""The state table is complete, contradicts nothing, and is what the documentation shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei.sdei.constants import CODE_NAMES
from qemu_sdei.sdei.document import page
from qemu_sdei.sdei.transitions import (
    BIT_ENABLED,
    BIT_REGISTERED,
    BIT_RUNNING,
    ROWS,
    STATE_NAMES,
    STATES,
    STEP,
    Action,
    Latch,
    Row,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "sdei-states.md"


def rows_for(action: Action, state: int) -> list[Row]:
    """The rows that speak about a cell."""
    return [row for row in ROWS if row.action == action and state in row.states]


@pytest.mark.parametrize("action", list(Action))
def test_every_state_has_exactly_one_outcome(action: Action) -> None:
    """No cell is forgotten, none is told twice; each cites its source."""
    for state in STATES:
        (row,) = rows_for(action, state)
        assert row.source
        assert row.result in CODE_NAMES
        assert STEP[action][state] == (row.result, state if row.next is None else row.next, row.latch)


def test_states_are_the_six_possible_ones() -> None:
    """Enabled implies registered."""
    assert set(STATES) == {s for s in range(8) if not s & BIT_ENABLED or s & BIT_REGISTERED} == set(STATE_NAMES)
    for row in ROWS:
        assert set(row.states) <= set(STATES)
        assert row.next is None or row.next in STATES


def test_running_bit_comes_by_dispatch_and_goes_by_completion() -> None:
    """Nothing else starts or ends a handler."""
    for action in Action:
        for state in STATES:
            changed = (STEP[action][state][1] ^ state) & BIT_RUNNING
            if changed and not state & BIT_RUNNING:
                assert action == Action.DISPATCH
            elif changed:
                assert action in (Action.COMPLETE, Action.PE_RESET)


def test_what_is_not_registered_holds_no_trigger() -> None:
    """Whatever leads to a state without a registration clears the pending bit."""
    for row in ROWS:
        for state in row.states:
            new = state if row.next is None else row.next
            if state & BIT_REGISTERED and not new & BIT_REGISTERED:
                assert row.latch == Latch.CLEAR


def test_impossible_states_refuse_everything() -> None:
    """2 and 6 cannot be reached; if they were, nothing would follow from it."""
    for action in Action:
        for state in (2, 6):
            result, new, latch = STEP[action][state]
            assert result < 0
            assert (new, latch) == (state, Latch.KEEP)


def test_document_is_current() -> None:
    """`python -m qemu_sdei.sdei.document > docs/reference/sdei-states.md` was not forgotten."""
    assert DOCUMENT.read_text() == page()
