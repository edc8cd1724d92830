"""`Status` says what `status.schema.json` says."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any, Literal

import pytest

from qemu_sdei.guest import status

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs/reference/status.schema.json").read_text())
AROUND = {"host", "rates", "registers", "latency"}
"""What the command adds to what the backend says."""


def definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = SCHEMA["definitions"][name]
    return found


INSTANCE = definition("instance")
PAIRS = {
    status.VcpuStatus: definition("pe"),
    status.EventStatus: definition("event"),
    status.InstanceStatus: INSTANCE,
    status.TriggerCounts: INSTANCE["properties"]["triggers"],
    status.SourceStatus: definition("source"),
    status.FirmwareStatus: definition("firmware"),
    status.RuleStatus: definition("firmware")["properties"]["rules"]["items"],
    status.Counts: SCHEMA["properties"]["counts"],
    status.Status: {**SCHEMA, "properties": {k: v for k, v in SCHEMA["properties"].items() if k not in AROUND}},
}
SIMPLE = {int: "integer", str: "string", bool: "boolean", type(None): "null"}


@pytest.mark.parametrize("kind", PAIRS, ids=lambda kind: kind.__name__)
def test_the_fields_are_the_schema_s(kind: type) -> None:
    form = PAIRS[kind]
    hints = typing.get_type_hints(kind)
    assert set(hints) == set(form["properties"])
    extras = typing.get_type_hints(kind, include_extras=True)  # __required_keys__ knows nothing of annotations in words
    required = {name for name, hint in extras.items() if typing.get_origin(hint) is not typing.NotRequired}
    assert required == set(form["required"]) & set(form["properties"])
    for name, hint in hints.items():
        check(name, hint, form["properties"][name])


def check(name: str, hint: Any, form: dict[str, Any]) -> None:
    if "allOf" in form:
        (form,) = form["allOf"]
    if "$ref" in form:
        form = definition(form["$ref"].rpartition("/")[2])
    types = form["type"] if isinstance(form["type"], list) else [form["type"]]
    parts = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
    if typing.get_origin(hint) is Literal:
        assert set(typing.get_args(hint)) == set(form["enum"]), name
    elif types == ["array"]:
        assert typing.get_origin(hint) is list, name
        check(name, typing.get_args(hint)[0], form["items"])
    elif types == ["object"]:
        assert typing.is_typeddict(hint) or typing.get_origin(hint) is dict, name
    else:
        assert {SIMPLE[part] for part in parts} == set(types), name
