"""Options of a guest that leaves: as they are written for another host or into a saved directory, and read there.

Which options go where is said beside each one in `options.py`. What is read is a stranger's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any, Final

from qemu_sdei import codec
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.vm.options import Goes, GuestOptions, rooted, travel

_FORMER: Final = frozenset(("exact_memory",))
"""Options that there were, in directories of older versions; how much RAM there is, the configuration says."""
_RENAMED: Final = {"profile": "events", "stall_timeout": "boot_timeout"}
"""Options that had another name."""
_MAX_TEXT: Final = 4096
_MAX_LIST: Final = 64
_LONGEST: Final = 1e6
"""Seconds."""


def names(kind: type[GuestOptions], *places: Goes) -> frozenset[str]:
    """The options that go as far as one of `places` says."""
    return frozenset(option.name for option in fields(kind) if travel(option).goes in places)


def to_host(options: GuestOptions) -> dict[str, Any]:
    """What another host is told of `options`."""
    found: dict[str, Any] = codec.to_data(rooted(options), only=names(type(options), Goes.EVERYWHERE))
    return found


def from_host(data: object, kind: type[GuestOptions] = GuestOptions) -> GuestOptions:
    """Read what another host's `to_host` gave; all of it must be there. Raises `ProtocolError`."""
    try:
        options = codec.from_data(kind, renamed(data), complete=True, only=names(kind, Goes.EVERYWHERE))
    except codec.FieldError as error:
        if error.name and error.fault == codec.TYPE:
            raise ProtocolError(f"the guest's option {error.name} has the wrong type") from None
        raise ProtocolError("the guest's options are those of another version of this program") from None
    for option in fields(options):
        value = getattr(options, option.name)
        if option.name in names(kind, Goes.EVERYWHERE) and not _from_stranger(value):
            raise ProtocolError(f"the guest's option {option.name} cannot be")
    if name := _wrong(options):
        raise ProtocolError(f"the guest's option {name} cannot be")
    if rooted(options) != options:
        raise ProtocolError("the guest's options have a path that is not absolute")
    return options


def to_directory(options: GuestOptions) -> dict[str, Any]:
    """What a saved directory holds of `options`."""
    found: dict[str, Any] = codec.to_data(rooted(options), only=in_directory(type(options)))
    return found


def from_directory(data: object, kind: type[GuestOptions] = GuestOptions) -> GuestOptions:
    """Read what `to_directory` gave, an older program's too, which knew fewer options. Raises `UsageError`."""
    known = renamed(
        {name: value for name, value in data.items() if name not in _FORMER} if isinstance(data, dict) else data
    )
    try:
        options = codec.from_data(kind, known, only=in_directory(kind))
    except codec.FieldError as error:
        if error.name and error.fault == codec.TYPE:
            raise UsageError(f"the saved guest's options are damaged: {error.name}") from None
        raise UsageError("the saved guest's options are those of another version of this program") from None
    if name := _wrong(options):
        raise UsageError(f"the saved guest's options are damaged: {name}")
    return options


def renamed(data: object) -> object:
    """Options that an older program has written, by the names that they have now."""
    if not isinstance(data, dict):
        return data
    return {_RENAMED.get(name, name): value for name, value in data.items()}


def in_directory(kind: type[GuestOptions] = GuestOptions) -> frozenset[str]:
    """The options that a saved directory has."""
    return names(kind, Goes.EVERYWHERE, Goes.SAVED)


def _wrong(options: GuestOptions) -> str | None:
    """The first option whose own check says no."""
    for option in fields(options):
        may_be = travel(option).may_be
        if may_be is not None and not may_be(getattr(options, option.name)):
            return option.name
    return None


def _from_stranger(value: object) -> bool:
    """Whether a value is small enough, and no text that does something at a terminal."""
    if isinstance(value, str):
        return len(value) <= _MAX_TEXT and value.isprintable()
    if isinstance(value, float):
        return value < _LONGEST
    if isinstance(value, Collection):
        return len(value) <= _MAX_LIST and all(not isinstance(entry, str) or entry.isprintable() for entry in value)
    return True
