"""How bad an error is (UEFI 2.10 N.2.1, "Error Severity"; ACPI 6.5 18.3.2.7.1 has the same values)."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final

from qemu_sdei.errors import CperError
from qemu_sdei.ras.fields import Field, Json


class Severity(IntEnum):
    """The values are not in the order of their badness: see `worst`."""

    RECOVERABLE = 0
    FATAL = 1
    CORRECTED = 2
    INFORMATIONAL = 3


NAMES: Final = {each.value: each.name.capitalize() for each in Severity}
_BADNESS: Final = (Severity.INFORMATIONAL, Severity.CORRECTED, Severity.RECOVERABLE, Severity.FATAL)


def severity_of(given: Any) -> Severity:
    """A severity that was given as such, as its number or by its name. Raises `CperError`."""
    try:
        if isinstance(given, str):
            return Severity[given.upper()]
        return Severity(given)
    except (KeyError, ValueError):
        known = ", ".join(name.lower() for name in NAMES.values())
        raise CperError(f"{str(given)[:60]!r} is no severity: it is one of {known}") from None


def worst(*severities: int) -> Severity:
    """The worst of them; of none, or of values that are none, informational."""
    return max(
        (Severity(each) for each in severities if each in NAMES), key=_BADNESS.index, default=Severity.INFORMATIONAL
    )


def uncorrected(severity: int) -> bool:
    """Whether it is an error that was not corrected."""
    return severity in (Severity.RECOVERABLE, Severity.FATAL)


def field(title: str) -> Field:
    """A field of four bytes that has one."""
    return Field(title=title, size=4, names=NAMES, json=Json(key="severity", value="code"))
