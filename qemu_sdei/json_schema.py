"""Forms of JSON values as a JSON Schema (draft 7): words to declare them by, and the check.

Of the schema's keywords it has those that our forms use. A number is an int, as JSON's integers are to Python: 1.0 and
true are none. A schema is made into functions once; a document is checked by calling them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

Schema = dict[str, Any]
Check = Callable[[Any], None]

_MAX_SHOWN: Final = 60
_TYPES: Final[dict[str, tuple[type, str]]] = {
    "object": (dict, "an object"),
    "array": (list, "a list"),
    "string": (str, "a text"),
    "integer": (int, "a number"),
    "boolean": (bool, "true or false"),
    "null": (type(None), "null"),
}


# ---- declarations ----------------------------------------------------------------------------------------------------


def _about(text: str) -> Schema:
    return {"description": text} if text else {}


def integer(low: int, high: int | None = None, about: str = "", **more: Any) -> Schema:
    return {**_about(about), "type": "integer", "minimum": low, **({} if high is None else {"maximum": high}), **more}


def only(value: int) -> Schema:
    return {"type": "integer", "const": value}


def boolean(about: str = "") -> Schema:
    return {**_about(about), "type": "boolean"}


def text(about: str = "", **more: Any) -> Schema:
    return {**_about(about), "type": "string", **more}


def ref(name: str, about: str = "") -> Schema:
    """A definition; beside a reference JSON Schema allows nothing, so what is said about it stands around it."""
    reference = {"$ref": f"#/definitions/{name}"}
    return {"description": about, "allOf": [reference]} if about else reference


def array(item: Schema, low: int | None = None, high: int | None = None, about: str = "", title: str = "") -> Schema:
    return {
        **({"title": title} if title else {}),
        **_about(about),
        "type": "array",
        **({} if low is None else {"minItems": low}),
        **({} if high is None else {"maxItems": high}),
        "items": item,
    }


def row(title: str, *items: Schema, about: str = "") -> Schema:
    """A list whose places have each their own meaning."""
    size = len(items)
    return {"title": title, **_about(about), "type": "array", "minItems": size, "maxItems": size, "items": list(items)}


def rows(title: str, *kinds: list[Schema], about: str = "") -> Schema:
    """The same, of several kinds."""
    size = len(kinds[0])
    found = {"title": title, **_about(about), "type": "array", "minItems": size, "maxItems": size}
    return {**found, "anyOf": [{"items": items} for items in kinds]}


def record(parts: dict[str, Schema], about: str = "", *, optional: tuple[str, ...] = (), **more: Any) -> Schema:
    """An object with these fields, of which all must be there but the `optional` ones."""
    return {
        **_about(about),
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in parts if name not in optional],
        "properties": parts,
        **more,
    }


# ---- the check -------------------------------------------------------------------------------------------------------


class MisfitError(ValueError):
    """A value has not the form that it should have."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []
        """Where it is, the innermost first."""

    def __str__(self) -> str:
        return ": ".join([*reversed(self.path), self.reason])


def compiled(schema: Schema) -> Check:
    """What checks whether a value is of the form `schema`; it raises `MisfitError`."""
    return _Compiler(schema.get("definitions", {})).check(schema)


class _Compiler:
    """Makes functions of a schema, each definition once."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions
        self._made: dict[str, Check] = {}

    def check(self, schema: Schema) -> Check:
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/definitions/")
            if name not in self._made:
                self._made[name] = self.check(self._definitions[name])
            return self._made[name]
        if schema.keys() - {"description"} == {"type", "minimum", "maximum"} and schema["type"] == "integer":
            return _range(schema["minimum"], schema["maximum"])  # most of what there is
        parts = [_type(schema["type"])] if "type" in schema else []
        parts += _scalars(schema)
        parts += self._of_lists(schema)
        parts += self._of_objects(schema)
        parts += [self.check(other) for other in schema.get("allOf", ())]
        if "anyOf" in schema:
            words = f"must be {schema['title']}" if "title" in schema else "is none of what it can be"
            parts.append(_any_of([self.check(other) for other in schema["anyOf"]], words))
        if "if" in schema:
            parts.append(_if_then(self.check(schema["if"]), self.check(schema["then"])))
        return parts[0] if len(parts) == 1 else _all_of(parts)

    def _of_lists(self, schema: Schema) -> list[Check]:
        parts: list[Check] = []
        if "minItems" in schema or "maxItems" in schema:
            parts.append(_size(list, schema.get("minItems", 0), schema.get("maxItems"), "entries"))
        if isinstance(items := schema.get("items"), list):
            parts.append(_each_place([self.check(item) for item in items]))
        elif items is not None:
            parts.append(_each_entry(self.check(items)))
        return parts

    def _of_objects(self, schema: Schema) -> list[Check]:
        parts: list[Check] = []
        if "maxProperties" in schema:
            parts.append(_size(dict, 0, schema["maxProperties"], "fields"))
        if "required" in schema:
            parts.append(_required(frozenset(schema["required"])))
        if "properties" in schema or "patternProperties" in schema:
            fields = {name: self.check(form) for name, form in schema.get("properties", {}).items()}
            # `$` would take a newline behind it.
            patterns = [
                (re.compile(pattern.removesuffix("$") + r"\Z"), self.check(form))
                for pattern, form in schema.get("patternProperties", {}).items()
            ]
            parts.append(_fields(fields, patterns, closed=schema.get("additionalProperties") is False))
        return parts


def _range(low: int, high: int) -> Check:
    def check(value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            raise MisfitError(f"must be a number from {low} to {high:#x}")

    return check


def _type(names: str | list[str]) -> Check:
    kinds = [_TYPES[name] for name in ([names] if isinstance(names, str) else names)]
    types = tuple(kind for kind, _ in kinds)
    words = " or ".join(word for _, word in kinds)

    def check(value: Any) -> None:
        if type(value) not in types:
            raise MisfitError(f"must be {words}")

    return check


def _scalars(schema: Schema) -> list[Check]:
    """What is said of numbers and texts; of values of other types it says nothing."""
    parts: list[Check] = []
    if "const" in schema:
        parts.append(_one_of([schema["const"]]))
    if "enum" in schema:
        parts.append(_one_of(schema["enum"]))
    low, high, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf", 1)
    if low is not None or high is not None or step != 1:

        def check(value: Any) -> None:
            if type(value) is not int:
                return
            if (low is not None and value < low) or (high is not None and value > high):
                raise MisfitError(f"must be a number from {low} to {'any' if high is None else hex(high)}")
            if value % step:
                raise MisfitError(f"must be a multiple of {step:#x}")

        parts.append(check)
    if "minLength" in schema or "maxLength" in schema:
        parts.append(_size(str, schema.get("minLength", 0), schema.get("maxLength"), "characters"))
    return parts


def _one_of(values: list[Any]) -> Check:
    known = {(type(value), value) for value in values}
    words = f"must be {' or '.join(map(repr, values))}"

    def check(value: Any) -> None:
        if not isinstance(value, str | int | bool) or (type(value), value) not in known:
            raise MisfitError(words)

    return check


def _size(kind: type, low: int, high: int | None, what: str) -> Check:
    if low == high:
        words = f"must have {low} {what}"
    else:
        words = f"must have at least {low} {what}" if high is None else f"must have {low} to {high} {what}"

    def check(value: Any) -> None:
        if isinstance(value, kind) and not (low <= len(value) and (high is None or len(value) <= high)):  # type: ignore[arg-type]
            raise MisfitError(words)

    return check


def _each_entry(entry_check: Check) -> Check:
    def check(value: Any) -> None:
        if isinstance(value, list):
            for index, entry in enumerate(value):
                try:
                    entry_check(entry)
                except MisfitError as error:
                    error.path.append(str(index))
                    raise

    return check


def _each_place(checks: list[Check]) -> Check:
    def check(value: Any) -> None:
        if isinstance(value, list):
            for index, (place, entry) in enumerate(zip(checks, value, strict=False)):
                try:
                    place(entry)
                except MisfitError as error:
                    error.path.append(str(index))
                    raise

    return check


def _required(names: frozenset[str]) -> Check:
    def check(value: Any) -> None:
        if isinstance(value, dict) and (missing := names - value.keys()):
            raise MisfitError(f"{', '.join(sorted(missing))}: missing")

    return check


def _fields(fields: dict[str, Check], patterns: list[tuple[re.Pattern[str], Check]], *, closed: bool) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, dict):
            return
        for name, entry in value.items():
            found = [fields[name]] if name in fields else []
            found += [form for pattern, form in patterns if pattern.search(name)]
            if closed and not found:
                raise MisfitError(f"{_brief(name)}: nothing is known of it")
            try:
                for form in found:
                    form(entry)
            except MisfitError as error:
                error.path.append(_brief(name) if patterns else name)
                raise

    return check


def _all_of(checks: list[Check]) -> Check:
    def check(value: Any) -> None:
        for one in checks:
            one(value)

    return check


def _any_of(checks: list[Check], words: str) -> Check:
    def check(value: Any) -> None:
        for one in checks:
            try:
                return one(value)
            except MisfitError:
                pass
        raise MisfitError(words)

    return check


def _if_then(condition: Check, then: Check) -> Check:
    def check(value: Any) -> None:
        try:
            condition(value)
        except MisfitError:
            return
        then(value)

    return check


def _brief(name: str) -> str:
    """A name from outside, as it can be shown."""
    return (
        name
        if name.isascii() and name.isidentifier() and len(name) <= _MAX_SHOWN
        else repr(name if len(name) <= _MAX_SHOWN else name[:_MAX_SHOWN] + "...")
    )
