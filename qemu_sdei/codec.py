"""Data classes as JSON values, and back: options, configurations, descriptions of guests.

The type hints of a class are the form of its document, and nothing else has to be written down. What is read is not
trusted: types are exact (true is no number), a field that is not known is refused, NaN is no number. What values mean
together is for the class itself to check. Why this is not a package: docs/decisions/0001-options-codec.md
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from qemu_sdei import paths

UNKNOWN: Final = "unknown"
ABSENT: Final = "absent"
TYPE: Final = "type"
_MAX_NAME: Final = 60

T = TypeVar("T")


class FieldError(ValueError):
    """A value is not of its form."""

    def __init__(self, name: str, fault: str) -> None:
        self.name = name
        """Of the field, with those that it is in before it: `hold.event`; "" for the value as a whole."""
        self.fault = fault
        """`UNKNOWN`, `ABSENT` or `TYPE`."""
        shown = repr(name[:_MAX_NAME])
        super().__init__(
            {
                UNKNOWN: f"unknown field {shown}",
                ABSENT: f"field {shown} is missing",
                TYPE: f"field {shown} has the wrong type" if name else "it is not an object",
            }[fault]
        )


def to_data(value: object, *, only: Collection[str] | None = None) -> Any:
    """`value` as JSON has it: data classes as objects (of the fields `only`), paths as absolute strings."""
    if isinstance(value, Path):
        return str(paths.absolute(value))
    if isinstance(value, Mapping):
        return {str(key): to_data(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_data(entry) for entry in value]
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if only is None or field.name in only]
        return {name: to_data(getattr(value, name)) for name in names}
    return value


def from_data(kind: type[T], data: object, *, complete: bool = False, only: Collection[str] | None = None) -> T:
    """The object of the data class `kind` that JSON's `data` is.

    Args:
        kind: its hints are of bool, int, float, str, Path, None, Literal, unions, tuple, Sequence, Mapping, Any and
            data classes.
        data: as `json.loads` gives it.
        complete: every field must be there, those with a default too.
        only: the fields that may be there; None: all.

    Raises:
        FieldError: it is none. What the class itself raises when values do not fit together.
    """
    if not isinstance(data, dict):
        raise FieldError("", TYPE)
    known = {field.name: field for field in fields(kind) if only is None or field.name in only}  # type: ignore[arg-type]
    for name in data:
        if name not in known:
            raise FieldError(str(name), UNKNOWN)
    for name, field in known.items():
        if name not in data and (complete or not _has_default(field)):
            raise FieldError(name, ABSENT)
    hints = _hints(kind)  # type: ignore[arg-type]
    return kind(**{name: _value(hints[name], entry, name, complete) for name, entry in data.items()})


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, data: Any, name: str, complete: bool) -> Any:
    """What `data` is for a field `name` with the type hint `hint`. Raises `FieldError`."""
    wrong = FieldError(name, TYPE)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, data, name, complete)
    if origin is Literal:
        for value in arguments:
            if type(value) is type(data) and value == data:
                return value
        raise wrong
    if origin is tuple or origin is Sequence:
        if not isinstance(data, list):
            raise wrong
        if origin is tuple and arguments[-1] is not Ellipsis:
            if len(data) != len(arguments):
                raise wrong
            return tuple(_value(kind, entry, name, complete) for kind, entry in zip(arguments, data, strict=True))
        return tuple(_value(arguments[0], entry, name, complete) for entry in data)
    if origin in (dict, Mapping):
        if not isinstance(data, dict):
            raise wrong
        return {key: _value(arguments[1], entry, name, complete) for key, entry in data.items()}
    if is_dataclass(hint):
        try:
            return from_data(hint, data, complete=complete)  # type: ignore[arg-type]
        except FieldError as error:
            raise FieldError(f"{name}.{error.name}" if error.name else name, error.fault) from None
    if hint is Any:
        return data
    if hint is Path and type(data) is str and "\0" not in data:
        return Path(data)
    if hint is float and type(data) in (int, float) and data == data:  # NaN is not
        try:
            return float(data)
        except OverflowError:
            raise wrong from None
    if hint in (bool, int, str, types.NoneType):
        if type(data) is hint:
            return data
    elif hint not in (Path, float):
        raise TypeError(f"{name}: {hint} is no type that documents have")
    raise wrong


def _one_of(kinds: tuple[Any, ...], data: Any, name: str, complete: bool) -> Any:
    """`data` as the first of `kinds` that it can be; of a single one besides None the error says more."""
    others = [kind for kind in kinds if kind is not types.NoneType]
    if data is None and len(others) < len(kinds):
        return None
    for kind in others[:-1]:
        try:
            return _value(kind, data, name, complete)
        except FieldError:
            pass
    return _value(others[-1], data, name, complete)
