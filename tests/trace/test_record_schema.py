"""The form of records: what is declared is what there is."""

from __future__ import annotations

import copy
from typing import Any

import fastjsonschema
import pytest

from qemu_sdei.json_schema import MisfitError, compiled
from qemu_sdei.trace.record_schema import KINDS, SCHEMA
from tests.backend.schema import DIALECT
from tests.trace.records import META, Record, one_of_each

fits = fastjsonschema.compile(SCHEMA)
own_check = compiled(SCHEMA)


def closed() -> Any:
    """The schema with nothing allowed that it does not name: what we write we declare."""
    schema = copy.deepcopy(SCHEMA)
    for name, form in schema["definitions"].items():
        if form.get("type") == "object" and name != "note" and "properties" in form:
            form["additionalProperties"] = False
    return schema


strictly = fastjsonschema.compile(closed())


def test_it_is_a_schema_of_words_that_we_use() -> None:
    fastjsonschema.validate(DIALECT, SCHEMA)


@pytest.mark.parametrize("record", [META, *one_of_each()], ids=lambda record: record["type"])
def test_each_kind_fits(record: Record) -> None:
    strictly(record)
    own_check(record)


def test_there_is_a_record_of_each_kind() -> None:
    assert {record["type"] for record in one_of_each()} == set(KINDS)


@pytest.mark.parametrize(
    "damage",
    [{"type": "cal"}, {"n": None}, {"vcpu": "0"}, {"x": [1, 2]}, {"args": {"event": "0"}}, {"then": "goes"}, {"el": 4}],
    ids=str,
)
def test_what_is_of_another_form_does_not_fit(damage: Record) -> None:
    call = next(record for record in one_of_each() if record["type"] == "call")
    for check, error in ((fits, fastjsonschema.JsonSchemaException), (own_check, MisfitError)):
        check(call)
        with pytest.raises(error):
            check(call | damage)


def test_a_reader_may_meet_more_than_is_declared() -> None:
    """A new field is no new version."""
    for record in one_of_each():
        fits({**record, "invented_later": [1]})
