"""The state document's JSON Schema, and what such a schema may consist of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastjsonschema

PATH = Path(__file__).resolve().parents[2] / "docs/reference/state-document.schema.json"
SCHEMA: Any = json.loads(PATH.read_text())
_compiled: Callable[[Any], Any] = fastjsonschema.compile(SCHEMA)


def refusal(state: Any) -> str | None:
    """Why a document does not fit the schema; None: it fits."""
    try:
        _compiled(state)
    except fastjsonschema.JsonSchemaException as error:
        return str(error)
    return None


_ANY: Any = {"$ref": "#/definitions/schema"}
_SIZE: Any = {"type": "integer", "minimum": 0}
_BY_NAME: Any = {"type": "object", "additionalProperties": _ANY}
_LIST: Any = {"type": "array", "minItems": 1, "items": _ANY}
_TYPE: Any = {"enum": ["object", "array", "string", "integer", "boolean", "null"]}

DIALECT: Any = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "allOf": [_ANY],
    "required": ["$schema", "title", "type", "definitions"],
    "definitions": {
        "schema": {
            "type": "object",
            "additionalProperties": False,
            # Draft 7: what stands beside a $ref is ignored.
            "if": {"required": ["$ref"]},
            "then": {"maxProperties": 1},
            "dependencies": {"if": ["then"], "then": ["if"]},
            "properties": {
                "$schema": {"const": "http://json-schema.org/draft-07/schema#"},
                "$ref": {"type": "string", "pattern": "^#/definitions/[a-z_]+$"},
                "title": {"type": "string"},
                "description": {"type": "string"},
                "type": {"anyOf": [_TYPE, {"type": "array", "uniqueItems": True, "items": _TYPE}]},
                "const": {},
                "enum": {"type": "array", "minItems": 1, "uniqueItems": True},
                "minimum": {"type": "integer"},
                "maximum": {"type": "integer"},
                "multipleOf": {"type": "integer", "minimum": 2},
                "minLength": _SIZE,
                "maxLength": _SIZE,
                "minItems": _SIZE,
                "maxItems": _SIZE,
                "maxProperties": _SIZE,
                "items": {"anyOf": [_ANY, _LIST]},
                "required": {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "string"}},
                "additionalProperties": {"const": False},
                "properties": _BY_NAME,
                "patternProperties": _BY_NAME,
                "definitions": _BY_NAME,
                "anyOf": _LIST,
                "allOf": _LIST,
                "if": _ANY,
                "then": _ANY,
            },
        }
    },
}
"""A schema of our schema: the keywords of draft 7 that it uses, and no other; so a slip of the pen is one."""


def subschemas(schema: Any = SCHEMA) -> Iterator[dict[str, Any]]:
    """A schema and all that are in it."""
    yield schema
    for key, value in schema.items():
        if key in ("properties", "patternProperties", "definitions"):
            inner = list(value.values())
        elif key in ("items", "anyOf", "allOf", "if", "then"):
            inner = value if isinstance(value, list) else [value]
        else:
            continue
        for one in inner:
            yield from subschemas(one)


def at(path: str) -> Any:
    """A value in the schema by its path, such as "definitions/word/maximum"."""
    node = SCHEMA
    for part in path.split("/"):
        node = node[int(part) if part.isdigit() else part]
    return node
