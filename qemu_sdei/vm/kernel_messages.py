"""What a guest's kernel says of itself on the console: that it panics, that it makes way for another one, that one
begins.

It is the guest's word only: whoever can write to its console can say the same. Nothing but what this guest's own user
waits for follows from it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Final

# A time stamp may stand anywhere in a line: a prompt does not end its line. Without one (or with a caller in
# its place) the words begin the line: a program's own output has other text before them.
_STAMP: Final = r"\[ {0,5}\d{1,9}\.\d{6}\] ?(?:\[[^\]\n]{1,40}\] ?)?"
_PREFIX: Final = rf"(?:^(?:\[[^\]\n]{{1,40}}\] ?)*|{_STAMP})"
_OOPS_WORDS: Final = ("Internal error: ", "Unable to handle kernel ", "BUG: ")
_SIGN_WORDS: Final = ("Kernel panic", "Bye!", "Booting Linux")
_PANIC_END: Final = re.compile(r"---\[ end Kernel panic|Rebooting in |reboot: |Starting crashdump kernel")
_OOPS: Final = re.compile(_PREFIX + rf"(?:{'|'.join(_OOPS_WORDS)})", re.MULTILINE)
_SIGNS: Final = re.compile(
    rf"(?P<panic>{_PREFIX}Kernel panic - not syncing:? ?(?P<message>[^\n]*))"
    rf"|(?P<bye>{_STAMP}Bye!$)"
    r"|(?P<begin>\[ {4}0\.000000\] ?(?:\[[^\]\n]{1,40}\] ?)?Booting Linux on physical CPU 0x[0-9a-f]{1,16}\b)",
    re.MULTILINE,
)
_GRACE: Final = 2.0
"""Seconds that the rest of a panic's text is waited for."""
_HELD: Final = 4096
"""Characters of a line that has no end yet."""
_MESSAGE: Final = 300
_KEPT: Final = 64
"""Panics that are kept."""


@dataclass(frozen=True)
class Panic:
    """What a kernel printed when it panicked."""

    message: str
    """Text behind "Kernel panic - not syncing: ", such as "sysrq triggered crash"; at most 300 characters. "": the
    kernel printed none, and another kernel has started.
    """
    position: int
    """Position of that line on the console, in characters. If there is none: of the first line of the next kernel."""
    lines: tuple[str, ...] = ()
    """Console lines from there on, at most 40, without control characters."""


class KernelWords:
    """Looks at console text for signs of its kernel's life. Positions are those of the console."""

    def __init__(self) -> None:
        self.oopses = 0
        """How many lines looked like an Oops or a kernel BUG."""
        self.panic: Panic | None = None
        """The panic of the kernel that ran last; None after a reset."""
        self.panics: list[Panic] = []
        """All of them, without their lines; the newest 64."""
        self.left = 0
        """Where the newest kernel that has left began to: it panicked, or made way for another one."""
        self.begun = -1
        """Where a kernel began to speak that no reset has started, the newest one's; -1: there was none."""
        self.claimed = -1
        """Where a kernel seems to have begun though nobody was heard to leave, the newest one's: it may be an old log,
        or the other was silent. (A panic in an NMI with a capture kernel loaded: Linux 6.12 jumps before it prints.)
        """
        self.silent = -1
        """Where a kernel began that a silent one has started, the newest one's."""
        self._line = ""
        self._seen = 0.0
        self._complete = False
        self._leaving = False
        self._fresh = True  # the machine's own boot is still to come

    def feed(self, text: str, end: int) -> None:
        """Take console text; `end` is the position before it."""
        lines, newline, rest = (self._line + text).rpartition("\n")
        at = end - len(self._line)
        self._line = rest[-_HELD:]
        # The last line of a panic has no newline.
        if self.panic is not None and _PANIC_END.search(lines + newline + rest):
            self._complete = True
        if not newline:
            return
        if any(word in lines for word in _OOPS_WORDS):
            self.oopses += sum(1 for _ in _OOPS.finditer(lines))
        if any(word in lines for word in _SIGN_WORDS):  # text without any must cost little
            self._look(lines, newline + rest, at)

    def _look(self, lines: str, rest: str, at: int) -> None:
        for match in _SIGNS.finditer(lines):
            position = at + match.start()
            if match["begin"]:
                # A kernel's log can be printed again later: only who has heard the other one leave takes it for news.
                if self._leaving:
                    self.begun, self._leaving = position, False
                elif not self._fresh:
                    self.claimed = position
                self._fresh = False
                continue
            if not self._leaving:
                self.left, self._leaving = position, True
            if match["panic"]:
                self._panics(Panic(match["message"][:_MESSAGE].rstrip(), position))
                self._complete = _PANIC_END.search(lines + rest, match.end()) is not None

    def _panics(self, panic: Panic) -> None:
        if self.panic is not None and self.begun < self.panic.position:
            return  # the same kernel's: a panic in a panic, or another CPU's
        self.panic = panic
        self.panics = [*self.panics, panic][-_KEPT:]
        self._seen = time.monotonic()

    def reset(self) -> None:
        """The machine was reset, or is where it was before: an old panic is no news any more."""
        self.panic = None
        self.left = 0
        self._leaving = False
        self._fresh = True

    def replaced(self, position: int) -> None:
        """What was claimed there is so."""
        self.left = self.begun = self.silent = position
        self._leaving = False

    def lives(self, *, forget: bool) -> None:
        """A kernel has done something since: what looked like an end is over, or was text that somebody printed.
        `forget`: an old panic is no news any more.
        """
        self._leaving = False
        if forget:
            self.panic = None

    @property
    def told(self) -> bool:
        """The panic's text has come, as far as it will."""
        return self._complete or self.succeeded or time.monotonic() - self._seen > _GRACE

    @property
    def succeeded(self) -> bool:
        """Another kernel has begun since the panic."""
        return self.panic is not None and self.begun > self.panic.position

    def doomed(self, silent: float) -> bool:
        """A panic was seen, and what came after bears it out: another kernel, or silence, which has lasted for `silent`
        seconds. Somebody may have printed an old log.
        """
        return self.panic is not None and (self.succeeded or silent > _GRACE)
