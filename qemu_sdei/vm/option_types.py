"""Whether the values of a data class are of the types that it declares: a sentence for whoever gives another one."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from qemu_sdei.errors import UsageError

_WORDS: Final = {str: "text", Path: "a path", int: "a whole number", float: "a number", bool: "True or False"}
_SEVERAL: Final = {str: "texts", Path: "paths", int: "whole numbers", float: "numbers"}
_SHOWN: Final = 60


def check_types(value: object) -> None:
    """Look at each field of a data class.

    Raises:
        UsageError: a field has a value of another type; the message says which belongs there.
    """
    kind: Any = type(value)
    for field in fields(kind):
        hint, given = _hints(kind)[field.name], getattr(value, field.name)
        if _fits(hint, given):
            continue
        shown = repr(given)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        hint_text = " or ".join(dict.fromkeys(_belongs(hint)))
        like = f": {field.name}=[{shown}]" if isinstance(given, str | Path) and _takes_a_list(hint) else ""
        raise UsageError(f"{kind.__name__}: {field.name} is {shown}, but must be {hint_text}{like}")


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a hint."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _takes_a_list(hint: Any) -> bool:
    return any(get_origin(part) in (Sequence, tuple) for part in _parts(hint))


def _fits(hint: Any, given: object) -> bool:
    return any(_is_one(part, given) for part in _parts(hint))


def _is_one(hint: Any, given: object) -> bool:
    """Whether a value is of a type that is no union."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is type(None):
        return given is None
    if origin is Literal:
        return isinstance(given, tuple({type(value) for value in arguments}))  # which of them is for others to say
    if origin is Sequence:  # text is a sequence of texts: a letter each is never what was meant
        if not isinstance(given, Sequence) or isinstance(given, str | bytes):
            return False
        return all(_fits(arguments[0], each) for each in given)
    if origin is tuple:
        if not isinstance(given, tuple | list) or len(given) != len(arguments):
            return False
        return all(_fits(kind, each) for kind, each in zip(arguments, given, strict=True))
    if origin is Mapping:
        return isinstance(given, Mapping) and all(
            _fits(arguments[0], key) and _fits(arguments[1], each) for key, each in given.items()
        )
    if hint is bool:
        return isinstance(given, bool)
    if hint in (int, float):  # True is no number
        return isinstance(given, int if hint is int else int | float) and not isinstance(given, bool)
    return isinstance(given, str | Path) if hint is Path else isinstance(given, hint)


def _belongs(hint: Any) -> Iterator[str]:
    """What belongs there, in words."""
    for part in _parts(hint):
        origin, arguments = get_origin(part), get_args(part)
        if part is type(None):
            yield "None"
        elif origin is Literal:
            yield f"one of {', '.join(map(repr, arguments))}"
        elif origin is Sequence:
            yield f"a list of {' or '.join(_SEVERAL.get(each, 'values') for each in _parts(arguments[0]))}"
        elif origin is tuple:
            yield f"{len(arguments)} {_SEVERAL.get(arguments[0], 'values')}"
        elif origin is Mapping:
            yield f"a dict of {_SEVERAL.get(arguments[0], 'values')} to {_SEVERAL.get(arguments[1], 'values')}"
        else:
            yield _WORDS.get(part, part.__name__)
