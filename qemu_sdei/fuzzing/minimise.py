"""A finding made smaller: what can be left out of a case, with the same fault to be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qemu_sdei.errors import CperError
from qemu_sdei.ras.mutate import Case, simpler

TRIES: Final = 24
"""Each costs a guest that is restored."""


def minimised(found: Case, is_same: Callable[[Case], bool], *, tries: int = TRIES) -> tuple[Case, int]:
    """The simplest case that still finds the same, and how many were tried.

    Args:
        found: the case that found it.
        is_same: shows a case to a guest as it was at the start, and says whether it finds the same.
        tries: how many may be shown.
    """
    made = 0
    again = True
    while again:
        again = False
        for each in simpler(found):
            try:
                if each.data == found.data:  # that edit changed nothing
                    found, again = each, True
                    break
            except CperError:
                continue
            if made == tries:
                return found, made
            made += 1
            if is_same(each):
                found, again = each, True
                break
    return found, made
