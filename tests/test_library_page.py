"""The page about the Python library leaves nothing out that a user can come by."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest

import qemu_sdei
from qemu_sdei.vm.options import GuestOptions
from scripts.docgenlib import library

OURS = {"Console", "Observer", "Placement"}
"""What a guest consists of: reachable, and nobody's business."""
ELSEWHERE = {"Any", "Iterator", "Match", "None", "Path"}


def test_what_can_be_imported_is_there() -> None:
    assert {name for name in qemu_sdei.__all__ if inspect.isclass(getattr(qemu_sdei, name))} <= {
        kind.__name__ for kind in library.CLASSES
    }


@pytest.mark.parametrize("kind", library.CLASSES, ids=lambda kind: kind.__name__)
def test_each_method_says_what_it_does_and_gives_what_is_there_too(kind: type) -> None:
    assert kind.__doc__
    known = {each.__name__ for each in library.CLASSES} | OURS | ELSEWHERE
    for name, member in library.members(kind):
        function: Any = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        assert function.__doc__, name
        gives = set(re.findall(r"\b[A-Z]\w+", str(inspect.signature(function).return_annotation)))
        assert gives <= known, name


def test_each_option_says_what_it_is() -> None:
    notes = library.field_notes(GuestOptions)
    assert [field.name for field in dataclasses.fields(GuestOptions) if field.name not in notes] == []
