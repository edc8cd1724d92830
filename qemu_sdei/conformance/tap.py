"""TAP 13 as the conformance guest prints it, and back.

The guest is hostile input like any other: a line that is none of the known ones is kept as text, and nothing raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final

from qemu_sdei.conformance.listing import EXTRA, LAST

NOT_SELECTED: Final = "not selected"
_MAX_LINE: Final = 4096
_MAX_DETAILS: Final = 64
_MAX_NOTES: Final = 16

_POINT: Final = re.compile(r"(not )?ok (\d{1,4}) - (.*)")
_SKIP: Final = re.compile(r"(.*?) # SKIP (.*)")
_SOURCE_OF_SKIP: Final = re.compile(r"(.*) \(source ([^()]*)\)")
_REQUEST: Final = re.compile(r"#! (failed|kind|mark|trigger|trigger-at|trigger-mark)((?: \w+)*)")
_NOTE: Final = re.compile(r"# \d{1,4} (not with|with|fails with) ")
_BEGIN: Final = re.compile(r"#! run (\d{1,4}) - (.*) # source (.*)")
_KEY: Final = re.compile(r"  (\w+):(?: (.*))?")
_ITEM: Final = re.compile(r"    - (.*)")


class Outcome(StrEnum):
    """How a scenario ended."""

    PASS = "ok"
    FAIL = "not ok"
    SKIP = "skip"


@dataclass(frozen=True)
class Result:
    """One scenario."""

    number: int
    name: str
    source: str
    """Where the rule comes from: a test of another suite, an implementation, a client that relies on it."""
    outcome: Outcome
    reason: str = ""
    """Of SKIP: why. Of FAIL, in one line: what was expected, and what came."""
    details: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Of FAIL: `call` or `what`, `expected`, `got`, `cpu`, `subject`, `where`, and `calls`, the guest's last ones."""
    notes: tuple[str, ...] = ()
    """Kinds of events that it was not tried with, and why."""
    trace: tuple[Mapping[str, Any], ...] = ()
    """Of FAIL: the backend's newest trace records."""


@dataclass(frozen=True)
class Begin:
    """A scenario begins."""

    number: int
    name: str
    source: str


@dataclass(frozen=True)
class Failed:
    """The guest waits for one character, so that the trace can be looked at."""

    number: int


@dataclass(frozen=True)
class Kind:
    """A scenario is tried with the kind of event that has this number."""

    number: int
    kind: int


@dataclass(frozen=True)
class Trigger:
    """The guest asks for an event and waits: `y` it was injected, `n` the firmware refused."""

    event: int
    cpu: int


@dataclass(frozen=True)
class TriggerAt(Trigger):
    """The same, when vCPU `watched` is in the code from `low` to before `high`."""

    watched: int
    low: int
    high: int


@dataclass(frozen=True)
class TriggerMark(Trigger):
    """What the guest will ask for when it comes to this mark."""

    mark: int


@dataclass(frozen=True)
class Mark:
    """The guest has come to a mark, and waits as with `Trigger`."""

    mark: int


@dataclass(frozen=True)
class Text:
    """Any other line: comments about the firmware, a crash."""

    line: str

    @property
    def fatal(self) -> bool:
        """The guest says that it ends here."""
        return self.line.startswith(("FAIL: ", "Bail out!"))


Item = Result | Begin | Kind | Failed | Trigger | Mark | Text
_REQUESTS: Final[Mapping[str, type[Failed | Kind | Mark | Trigger]]] = {
    "failed": Failed,
    "kind": Kind,
    "mark": Mark,
    "trigger": Trigger,
    "trigger-at": TriggerAt,
    "trigger-mark": TriggerMark,
}


class Parser:
    """Makes `Item`s of console text in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = ""
        self._open: Result | None = None
        """A failure whose details are still to come."""
        self._details: dict[str, str | tuple[str, ...]] | None = None
        self._key = ""
        self._notes: list[str] = []

    def feed(self, text: str) -> Iterator[Item]:
        """Yield what `text` completes."""
        self._buffer += text
        while "\n" in self._buffer:
            line, self._buffer = self._buffer.split("\n", 1)
            yield from self._line(line.rstrip("\r")[:_MAX_LINE])
        self._buffer = self._buffer[:_MAX_LINE]

    def notes(self) -> tuple[str, ...]:
        """What was said beside the result of a scenario that has none yet."""
        return tuple(self._notes)

    def finish(self) -> Iterator[Item]:
        """Yield what is left when no more text comes."""
        if self._buffer:
            yield from self.feed("\n")
        yield from self._close()

    def _close(self) -> Iterator[Item]:
        if self._open is not None:
            details = self._details or {}
            what = details.get("call") or details.get("what") or "a check"
            reason = f"{what}: expected {details.get('expected', '?')}, got {details.get('got', '?')}"
            yield replace(self._open, details=details, reason=reason)
        self._open = self._details = None

    def _line(self, line: str) -> Iterator[Item]:
        if self._open is not None:
            if self._detail(line):
                return
            yield from self._close()
            if line == "  ...":
                return
        if match := _POINT.fullmatch(line):
            yield from self._point(bool(match[1]), int(match[2]), match[3])
        elif match := _BEGIN.fullmatch(line):
            yield Begin(int(match[1]), match[2], match[3])
        elif match := _REQUEST.fullmatch(line):
            yield from self._request(match[1], match[2].split(), line)
        elif line.startswith("# ") and self._is_note(line):
            self._notes[_MAX_NOTES:] = []
            self._notes.append(line[2:].split(" ", 1)[1])
        elif line and not line.startswith(("TAP version", "1..")):
            yield Text(line)

    def _is_note(self, line: str) -> bool:
        return _NOTE.match(line) is not None

    def _detail(self, line: str) -> bool:
        """Take `line` as part of the open failure's YAML block; False: the block is over."""
        if self._details is None:
            if line != "  ---":
                return False
            self._details = {}
            return True
        if line == "  ...":
            return False
        if match := _KEY.fullmatch(line):
            self._key = match[1]
            if len(self._details) < _MAX_DETAILS:
                self._details[self._key] = () if match[2] is None else _unquoted(match[2])
            return True
        if match := _ITEM.fullmatch(line):
            items = self._details.get(self._key, ())
            if isinstance(items, tuple) and len(items) < _MAX_DETAILS and self._key in self._details:
                self._details[self._key] = (*items, _unquoted(match[1]))
            return True
        return False

    def _point(self, failed: bool, number: int, text: str) -> Iterator[Item]:
        notes = tuple(self._notes)
        self._notes.clear()
        if not 1 <= number <= EXTRA[-1]:
            yield Text(text)
            return
        if failed:
            name, _, source = text.partition(" # source ")
            self._open = Result(number, name, source, Outcome.FAIL, notes=notes)
            return
        if match := _SKIP.fullmatch(text):
            reason, source = match[2], ""
            if with_source := _SOURCE_OF_SKIP.fullmatch(reason):
                reason, source = with_source[1], with_source[2]
            yield Result(number, match[1], source, Outcome.SKIP, reason)
            return
        name, _, source = text.partition(" # source ")
        yield Result(number, name, source, Outcome.PASS, notes=notes)

    def _request(self, word: str, values: list[str], line: str) -> Iterator[Item]:
        make = _REQUESTS[word]
        try:
            numbers = [int(value, 0) for value in values]
        except ValueError:
            numbers = []
        if len(numbers) == len(fields(make)):
            yield make(*numbers)
        else:
            yield Text(line)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text


def write_tap(results: Iterable[Result]) -> str:
    """`results` as TAP 13: every scenario has its number, those that are not in `results` are skipped."""
    found = {result.number: result for result in results}
    last = max([LAST, *found])
    lines = ["TAP version 13", f"1..{last}"]
    for number in range(1, last + 1):
        result = found.get(number)
        if result is None:
            lines.append(f"ok {number} # SKIP {NOT_SELECTED}")
        elif result.outcome is Outcome.SKIP:
            lines.append(f"ok {number} - {result.name} # SKIP {result.reason} (source {result.source})")
        else:
            lines.append(f"{result.outcome} {number} - {result.name} # source {result.source}")
        if result is not None and result.outcome is Outcome.FAIL:
            lines += _yaml(result)
    return "\n".join(lines) + "\n"


def _yaml(result: Result) -> Iterator[str]:
    yield "  ---"
    yield f"  message: {json.dumps(result.reason)}"
    for key, value in result.details.items():
        if isinstance(value, str):
            yield f"  {key}: {json.dumps(value)}"
        else:
            yield f"  {key}:"
            yield from (f"    - {json.dumps(item)}" for item in value)
    if result.trace:
        yield "  trace:"
        yield from (f"    - {json.dumps(dict(record))}" for record in result.trace)
    yield "  ..."
