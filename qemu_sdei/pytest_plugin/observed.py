"""What a test asserts on: what the firmware saw, and what the guest printed, since the test began."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest

_NEWEST: Final = 1000
_LOOK: Final = 0.02


class Events:
    """Trace records of a guest's firmware (docs/reference/trace.md) since the test began."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        newest = guest.trace(1)
        self._after = newest[-1]["n"] if newest else 0

    @property
    def records(self) -> list[dict[str, Any]]:
        """All of them that are still there (the newest 1,000 at most), oldest first."""
        return [record for record in self._guest.trace(_NEWEST) if record["n"] > self._after]

    def find(self, **fields: Any) -> list[dict[str, Any]]:
        """Those with these fields, such as `type="call", function="CPU_OFF", vcpu=1`."""
        return [record for record in self.records if all(record.get(name) == v for name, v in fields.items())]

    def expect(self, timeout: float = 10.0, **fields: Any) -> dict[str, Any]:
        """The first record with these fields; waits for it `timeout` seconds at most.

        Raises:
            AssertionError: none came; it says what did.
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout
        while not (found := self.find(**fields)):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"no record with {_words(fields)} came within {timeout:g} s; {self._what_came(fields)}"
                )
            time.sleep(_LOOK)
        return found[0]

    def none(self, **fields: Any) -> None:
        """Nothing of the kind came so far. Raises `AssertionError`: it did."""
        __tracebackhide__ = True
        found = self.find(**fields)
        if found:
            raise AssertionError(f"{len(found)} records with {_words(fields)} came, the first: {found[0]}")

    def _what_came(self, fields: dict[str, Any]) -> str:
        kinds: dict[str, int] = {}
        for record in self.records:
            if "type" not in fields or record.get("type") == fields["type"]:
                name = " ".join(
                    str(record[key]) for key in ("type", "function", "event") if record.get(key) is not None
                )
                kinds[name] = kinds.get(name, 0) + 1
        shown = ", ".join(f"{count} × {name}" for name, count in sorted(kinds.items())[:20])
        return f"what came: {shown}" if shown else "nothing came"


class ConsoleSince:
    """The guest's console since the test began."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._from = len(guest.console)

    @property
    def text(self) -> str:
        """What was printed."""
        return self._guest.console[self._from :]

    def expect(self, pattern: str, timeout: float = 10.0) -> re.Match[str]:
        """Where the regular expression `pattern` matches; waits for it `timeout` seconds at most.

        Raises:
            AssertionError: it does not match; the end of the console is with it.
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout
        while (found := re.search(pattern, self.text, re.MULTILINE)) is None:
            if time.monotonic() > deadline:
                tail = "\n".join(self.text.splitlines()[-10:])
                raise AssertionError(f"{pattern!r} was not printed within {timeout:g} s; the last lines:\n{tail}")
            time.sleep(_LOOK)
        return found


def _words(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in fields.items())
