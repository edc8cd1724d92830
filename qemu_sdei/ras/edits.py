"""One value changed, wherever it is: `changed(section.body, "error_information[0].length", 31)`.

Nothing else follows from it: counts, lengths and validation bits stay as they are, so that records can be made wrong on
purpose, one value at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from qemu_sdei.errors import CperError
from qemu_sdei.ras.fields import Field
from qemu_sdei.ras.items import Many
from qemu_sdei.ras.structure import Structure

_STEP: Final = re.compile(r"([a-z0-9_]+)(?:\[(\d{1,6})\])?")


def changed(structure: Structure, path: str, value: Any) -> Structure:
    """The same structure with another value at `path`.

    Args:
        structure: what is changed.
        path: attributes with dots between them, `[N]` behind those of which there are many; the last one may be the
            name of bits: `error_status.error_type`.
        value: as `Table.make` takes it for that field.

    Raises:
        CperError: there is no such place, or it cannot be that.
    """
    try:
        return _changed(structure, _steps(path), value)
    except CperError as error:
        raise CperError(error.message, field=path) from None


def places(structure: Structure, path: str = "") -> Iterator[tuple[str, Field]]:
    """The path of each field of a structure, and the field; those of inner structures in their places."""
    for item, value, _ in structure.items():
        name = f"{path}.{item.name}" if path else item.name
        if isinstance(item, Field):
            yield name, item
        elif isinstance(item, Many):
            for number, each in enumerate(value):
                yield from places(each, f"{name}[{number}]")
        elif isinstance(value, Structure):
            yield from places(value, name)


def _steps(path: str) -> list[tuple[str, int | None]]:
    found = [_STEP.fullmatch(part) for part in path.split(".")]
    if not all(found):
        raise CperError("it is no path such as error_information[0].type")
    return [(match[1], None if match[2] is None else int(match[2])) for match in found if match is not None]


def _changed(structure: Structure, steps: list[tuple[str, int | None]], value: Any) -> Structure:
    (name, number), *more = steps
    item = structure.table[name]
    current = structure[name]
    if isinstance(current, tuple):
        if number is None or number >= len(current):
            raise CperError(f"there are {len(current)} of {name!r}: say which, [0] is the first")
        if more:
            inner = _changed(current[number], more, value)
        else:
            (inner,), _ = structure.table.taken(item, [value], structure.values)
        new: Any = (*current[:number], inner, *current[number + 1 :])
    elif number is not None:
        raise CperError(f"there is one {name!r}, without a number")
    elif not more:
        return structure.replaced(**{name: value})
    elif isinstance(current, Structure):
        new = _changed(current, more, value)
    elif isinstance(item, Field) and (word := item.word_for(structure.values)) is not None and len(more) == 1:
        bits = word[more[0][0]]
        new = bits.put(current, bits.taken(value))
    else:
        raise CperError(f"{name!r} has no {more[0][0]!r}")
    return replace(structure, values={**structure.values, name: new})
