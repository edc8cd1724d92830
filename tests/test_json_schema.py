"""The check of forms: what fits, what is said of the rest, and that another implementation says the same."""

from __future__ import annotations

from typing import Any

import fastjsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei.json_schema import (
    MisfitError,
    array,
    boolean,
    compiled,
    integer,
    only,
    record,
    ref,
    row,
    rows,
    text,
)

OFF_IS_EMPTY: dict[str, Any] = {
    "if": {"properties": {"on": {"const": False}}},
    "then": {"properties": {"events": {"maxItems": 0}}},
}
FORM: dict[str, Any] = {
    **record(
        {
            "word": ref("word"),
            "even": integer(0, multipleOf=2),
            "words": array(ref("word"), 1, 3),
            "pair": row("[word, text]", ref("word"), text(maxLength=3)),
            "either": rows("[0, word] or [1, text]", [only(0), ref("word")], [only(1), text()]),
            "choice": {"type": "integer", "enum": [1, 3]},
            "maybe": {"type": ["integer", "null"], "minimum": 5},
            "table": {
                "type": "object",
                "additionalProperties": False,
                "patternProperties": {"^-?[0-9]{1,3}$": boolean()},
            },
            "open": {"type": "object"},
            "empty": {"anyOf": [{"type": "object", "maxProperties": 0}, ref("word")]},
            "state": record(
                {"on": boolean(), "events": array(text())},
                **OFF_IS_EMPTY,
            ),
        },
        optional=("maybe", "table", "open", "empty", "state"),
    ),
    "definitions": {"word": integer(0, 255, "8 bits")},
}
GOOD: dict[str, Any] = {
    "word": 255,
    "even": 4,
    "words": [0, 1],
    "pair": [1, "abc"],
    "either": [1, "x"],
    "choice": 3,
    "maybe": None,
    "table": {"-12": True},
    "open": {"anything": [None]},
    "empty": {},
    "state": {"on": False, "events": []},
}
ours, theirs = compiled(FORM), fastjsonschema.compile(FORM)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("word", 256, "word: must be a number from 0 to 0xff"),
        ("word", -1, "word: must be a number from 0 to 0xff"),
        ("word", True, "word: must be a number from 0 to 0xff"),
        ("word", 1.0, "word: must be a number from 0 to 0xff"),
        ("word", 10**4000, "word: must be a number from 0 to 0xff"),
        ("even", 3, "even: must be a multiple of 0x2"),
        ("even", -2, "even: must be a number from 0 to any"),
        ("words", [], "words: must have 1 to 3 entries"),
        ("words", [1, 2, "x"], "words: 2: must be a number from 0 to 0xff"),
        ("words", {}, "words: must be a list"),
        ("pair", [1], "pair: must have 2 entries"),
        ("pair", [1, "abcd"], "pair: 1: must have 0 to 3 characters"),
        ("either", [0, "x"], r"either: must be [0, word] or [1, text]"),
        ("choice", 2, "choice: must be 1 or 3"),
        ("choice", True, "choice: must be a number"),
        ("maybe", 4, "maybe: must be a number from 5 to any"),
        ("maybe", "x", "maybe: must be a number or null"),
        ("table", {"1234": True}, "table: '1234': nothing is known of it"),
        ("table", {"1\n": True}, "table: '1\\n': nothing is known of it"),
        ("table", {"1": 1}, "table: '1': must be true or false"),
        ("empty", {"a": 1}, "empty: is none of what it can be"),
        ("state", {"on": False, "events": ["x"]}, "state: events: must have 0 entries"),
        ("state", {"on": False}, "state: events: missing"),
        ("\x1b[31m" + "x" * 99, 1, f"'\\x1b[31m{'x' * 55}...': nothing is known of it"),
    ],
)
def test_what_does_not_fit_is_said(name: str, value: Any, words: str) -> None:
    with pytest.raises(MisfitError) as error:
        ours(GOOD | {name: value})
    assert str(error.value) == words


def test_what_fits_is_taken() -> None:
    ours(GOOD)
    ours({name: GOOD[name] for name in ("word", "even", "words", "pair", "either", "choice")})
    with pytest.raises(MisfitError, match=r"^choice, either, even, pair, words: missing$"):
        ours({"word": 1})


# JSON's integers are Python's here; to a JSON Schema 1.0 is one too.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats(0.1, 0.9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), json_values))
def test_another_implementation_says_the_same(changes: dict[str, Any]) -> None:
    def fits(check: Any, refusal: type[Exception]) -> bool:
        try:
            check(GOOD | changes)
        except refusal:
            return False
        return True

    assert fits(ours, MisfitError) is fits(theirs, fastjsonschema.JsonSchemaException)
