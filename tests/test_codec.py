"""Data classes as JSON and back: what fits is taken as it is, all else is refused by the name of its field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_sdei import codec
from tests.examples import JSON_VALUES


@dataclass(frozen=True)
class Inner:
    number: int
    word: str = ""


@dataclass(frozen=True)
class Outer:
    count: int = 0
    flag: bool = False
    ratio: float = 1.0
    word: str = ""
    path: Path = Path("/")
    either: str | Path | None = None
    both: bool | str | Path = False
    choice: Literal["a", "b"] = "a"
    pair: tuple[int, int] | None = None
    words: Sequence[str] = ()
    paths: Mapping[str, Path] = field(default_factory=dict)
    inner: Inner | None = None
    anything: dict[str, Any] = field(default_factory=dict)


FULL = Outer(
    5, True, 2.5, "x", Path("/p"), "/e", "/b", "b", (1, 2), ("u", "v"), {"k": Path("/q")}, Inner(7, "w"), {"z": [None]}
)


def read(**values: Any) -> Outer:
    return codec.from_data(Outer, json.loads(json.dumps(values)))


@pytest.mark.parametrize("value", [Outer(), FULL])
def test_it_is_the_same_after_the_way_through_json(value: Outer) -> None:
    assert codec.from_data(Outer, json.loads(json.dumps(codec.to_data(value))), complete=True) == value


def test_paths_mean_the_same_to_whoever_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert codec.to_data(Outer(path=Path("x"), either=Path("y")))["path"] == f"{tmp_path}/x"
    assert codec.to_data(Outer(either=Path("y")))["either"] == f"{tmp_path}/y"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"count": True}, "count"),
        ({"count": 1.0}, "count"),
        ({"count": "1"}, "count"),
        ({"count": None}, "count"),
        ({"flag": 1}, "flag"),
        ({"flag": 0}, "flag"),
        ({"ratio": True}, "ratio"),
        ({"ratio": "1"}, "ratio"),
        ({"ratio": float("nan")}, "ratio"),
        ({"ratio": 10**4000}, "ratio"),
        ({"word": 5}, "word"),
        ({"path": "a\0b"}, "path"),
        ({"path": None}, "path"),
        ({"either": 5}, "either"),
        ({"both": 0}, "both"),
        ({"choice": "c"}, "choice"),
        ({"choice": ["a"]}, "choice"),
        ({"pair": [1]}, "pair"),
        ({"pair": [1, 2, 3]}, "pair"),
        ({"pair": [1, True]}, "pair"),
        ({"pair": "12"}, "pair"),
        ({"words": "abc"}, "words"),
        ({"words": [1]}, "words"),
        ({"words": None}, "words"),
        ({"paths": ["/a"]}, "paths"),
        ({"paths": {"a": 1}}, "paths"),
        ({"inner": []}, "inner"),
        ({"inner": {"number": "1"}}, "inner.number"),
        ({"anything": []}, "anything"),
    ],
)
def test_a_wrong_type_is_refused_by_name(values: dict[str, Any], name: str) -> None:
    with pytest.raises(codec.FieldError, match="has the wrong type") as error:
        read(**values)
    assert (error.value.name, error.value.fault) == (name, codec.TYPE)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"inner": {"number": 1, "more": 1}}, "unknown field 'inner.more'"),
        ({"inner": {}}, "field 'inner.number' is missing"),
        ({"\x1b[31m" + "x" * 10_000: 1}, r"unknown field '\\x1b\[31mx{55}'$"),
        ([], "it is not an object"),
        (None, "it is not an object"),
    ],
)
def test_fields_that_are_not_known_or_not_there(data: object, words: str) -> None:
    with pytest.raises(codec.FieldError, match=words):
        codec.from_data(Outer, data)


def test_all_fields_or_only_some() -> None:
    data = codec.to_data(FULL, only=("count", "word"))
    assert data == {"count": 5, "word": "x"}
    assert codec.from_data(Outer, data, complete=True, only=("count", "word")) == Outer(count=5, word="x")
    with pytest.raises(codec.FieldError, match="field 'word' is missing"):
        codec.from_data(Outer, {"count": 5}, complete=True, only=("count", "word"))
    with pytest.raises(codec.FieldError, match="unknown field 'flag'"):
        codec.from_data(Outer, {"flag": True}, only=("count", "word"))


@given(st.dictionaries(st.sampled_from(sorted(codec.to_data(FULL))), JSON_VALUES))
def test_any_values_give_an_object_or_a_field_error(changes: dict[str, Any]) -> None:
    try:
        found = read(**changes)
    except codec.FieldError:
        return
    assert codec.from_data(Outer, json.loads(json.dumps(codec.to_data(found)))) == found
