"""Which rules are for which table: a module of rules says so itself, by `@rules_for`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.table import Table

_T = TypeVar("_T", bound=Table)
Rules = Callable[[Report, _T], None]

RULES: Final[dict[type[Table], Rules[Any]]] = {}
"""The rules of each class of tables that has any. Complete once `qemu_sdei.acpi.rules` has been imported."""


def rules_for(*kinds: type[_T]) -> Callable[[Rules[_T]], Rules[_T]]:
    """Decorator: this function checks tables of these classes."""

    def register(check: Rules[_T]) -> Rules[_T]:
        for kind in kinds:
            assert kind not in RULES, f"two functions check {kind.__name__}"
            RULES[kind] = check
        return check

    return register
