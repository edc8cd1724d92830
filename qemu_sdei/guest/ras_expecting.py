"""What may be expected of a guest's kernel after an error, and what came in place of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

from qemu_sdei.errors import UsageError
from qemu_sdei.guest.ras_observing import Observed, Signal

_NAMES: Final = {4: "BUS_MCEERR_AR", 5: "BUS_MCEERR_AO"}
_SHOWN: Final = 6
"""Lines of a log that are quoted."""


class Expectation(Protocol):
    """One thing that is expected."""

    def met(self, found: Observed) -> bool:
        """Whether it has come."""

    def missing(self, found: Observed) -> str:
        """What is to be said when it has not: what it was, and what came in place of it."""

    @property
    def frames(self) -> tuple[int, ...]:
        """Page frames whose state must be asked for."""

    def __str__(self) -> str:
        """It, in a few words."""


@dataclass(frozen=True, slots=True)
class Log:
    """A line of the kernel's log in which a regular expression is found."""

    pattern: re.Pattern[str]
    frames: tuple[int, ...] = ()

    @classmethod
    def of(cls, text: str) -> Log:
        """Raises UsageError: it is no regular expression."""
        try:
            return cls(re.compile(text))
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(f"{text!r} is not a regular expression: {error}") from None

    def met(self, found: Observed) -> bool:
        """See `Expectation`."""
        return any(self.pattern.search(line) for line in found.log)

    def missing(self, found: Observed) -> str:
        """See `Expectation`."""
        return f"no line of the kernel's log matches {self.pattern.pattern!r}{_instead(found)}"

    def __str__(self) -> str:
        return f"log {self.pattern.pattern!r}"


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace event of the kernel, and a field of it."""

    event: str
    field: str = ""
    value: str = ""
    frames: tuple[int, ...] = ()

    @classmethod
    def of(cls, text: str) -> Trace:
        """From EVENT or EVENT:FIELD=VALUE. Raises UsageError."""
        match = re.fullmatch(r"(?:ras[:/])?(\w{1,64})(?::([^=]{1,64})=(.{1,256}))?", text)
        if match is None:
            raise UsageError(f"{text!r} is not a trace event: write EVENT:FIELD=VALUE, such as arm_event:error=1")
        return cls(match[1], (match[2] or "").strip(), (match[3] or "").strip())

    def met(self, found: Observed) -> bool:
        """See `Expectation`."""
        return any(each.name == self.event and self._has(each.text) for each in found.trace)

    def _has(self, text: str) -> bool:
        if not self.field:
            return True
        for match in re.finditer(rf"(?<![\w]){re.escape(self.field)}\s*[=: ]\s*", text, re.IGNORECASE):
            rest = text[match.end() :]
            if rest.startswith(self.value) and not re.match(r"\w", rest[len(self.value) :]):
                return True
            if _number(self.value) is not None and _number(self.value) in _numbers(rest):
                return True
        return False

    def missing(self, found: Observed) -> str:
        """See `Expectation`."""
        same = [each.text for each in found.trace if each.name == self.event]
        if same:
            shown = "".join(f"\n    {text}" for text in same[-_SHOWN:])
            return f"no trace event {self.event} has {self.field}={self.value}; it said{shown}"
        others = sorted({each.name for each in found.trace})
        came = f"there were {', '.join(others)}" if others else "there was none"
        return f"no trace event {self.event} came: {came}{_instead(found)}"

    def __str__(self) -> str:
        return f"trace event {self.event}" + (f" with {self.field}={self.value}" if self.field else "")


@dataclass(frozen=True, slots=True)
class Sigbus:
    """A SIGBUS to a process, with an si_code: 4 is BUS_MCEERR_AR, 5 is BUS_MCEERR_AO."""

    pid: int
    code: int
    threads: tuple[int, ...] = ()
    """Threads of the process: a signal is one of a thread."""
    frames: tuple[int, ...] = ()

    def met(self, found: Observed) -> bool:
        """See `Expectation`."""
        return any(each.code == self.code and each.pid in (self.pid, *self.threads) for each in found.signals)

    def missing(self, found: Observed) -> str:
        """See `Expectation`."""
        wanted = f"no SIGBUS with si_code {_code(self.code)} came to process {self.pid}"
        signals = "; ".join(_signal(each) for each in found.signals)
        return f"{wanted}: {f'what came was {signals}' if signals else 'no process got one'}{_instead(found)}"

    def __str__(self) -> str:
        return f"SIGBUS {_code(self.code)} to process {self.pid}"


@dataclass(frozen=True, slots=True)
class Panics:
    """The kernel panics, and what it says then."""

    pattern: re.Pattern[str] = re.compile("")
    frames: tuple[int, ...] = ()

    def met(self, found: Observed) -> bool:
        """See `Expectation`."""
        return found.panic is not None and self.pattern.search(found.panic) is not None

    def missing(self, found: Observed) -> str:
        """See `Expectation`."""
        if found.panic is not None:
            return f"the kernel panicked, and its words {found.panic!r} do not match {self.pattern.pattern!r}"
        return f"the kernel did not panic{_instead(found)}"

    def __str__(self) -> str:
        return "a kernel panic"


@dataclass(frozen=True, slots=True)
class Offline:
    """The kernel takes a page out of use."""

    frame: int

    @property
    def frames(self) -> tuple[int, ...]:
        """See `Expectation`."""
        return (self.frame,)

    def met(self, found: Observed) -> bool:
        """See `Expectation`."""
        state = found.poisoned.get(self.frame)
        if state is None:  # a kernel without /proc/kpageflags: what it counts and says must do
            said = any(re.search(rf"\b(?:0x)?{self.frame:x}: recovery action for", line) for line in found.log)
            return bool(found.corrupted) and said
        return state

    def missing(self, found: Observed) -> str:
        """See `Expectation`."""
        return f"page {self.frame:#x} is in use as before{_instead(found)}"

    def __str__(self) -> str:
        return f"page {self.frame:#x} out of use"


def instead(found: Observed) -> list[str]:
    """What came at all, one line each, for people."""
    lines = [_signal(each) for each in found.signals]
    if found.corrupted:
        lines.append(f"{found.corrupted} KiB of memory taken out of use")
    lines += [f"log: {line}" for line in found.log[-_SHOWN:]]
    lines += [f"trace: {each.name}: {each.text}" for each in found.trace[-_SHOWN:] if each.name != "signal_generate"]
    if found.panic is not None:
        lines.append(f"the kernel panicked: {found.panic}")
    return lines


def _instead(found: Observed) -> str:
    lines = instead(found)
    return "; what came:" + "".join(f"\n    {line}" for line in lines) if lines else "; nothing else came either"


def _signal(signal: Signal) -> str:
    where = "" if signal.address is None else f", si_addr {signal.address:#x}"
    return f"SIGBUS with si_code {_code(signal.code)}{where} to process {signal.pid}"


def _code(code: int) -> str:
    return f"{code} ({_NAMES[code]})" if code in _NAMES else str(code)


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _numbers(text: str) -> set[int]:
    """What the number that a text begins with may be: the kernel prints some hexadecimal ones without 0x."""
    match = re.match(r"(?:0x)?[0-9a-fA-F]{1,16}(?!\w)", text)
    if match is None:
        return set()
    digits = match[0].removeprefix("0x")
    found = {int(digits, 16)}
    if digits.isdecimal() and not match[0].startswith("0x"):
        found.add(int(digits))
    return found
