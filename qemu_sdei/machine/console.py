"""The guest's console as text that can be waited for.

One thread (the guest's event loop) feeds bytes; any other may wait. The text is bounded: of a guest that floods its
console the oldest part is forgotten. A position counts characters since the guest's start, so it stays valid then.
"""

from __future__ import annotations

import codecs
import re
import threading
import time
from collections.abc import Callable
from typing import Final

from qemu_sdei.errors import GuestError, GuestPanicError, GuestTimeoutError, LostGuestError

LIMIT: Final = 4 << 20
"""Characters of console text that are kept."""
MATCH_LIMIT: Final = 64 << 10
"""A match of `expect` is found if it is no longer than this: what a search goes back over when new text came."""
_TAIL_LINES: Final = 30
_LINE_WIDTH: Final = 300

# printk's prefix (time, then perhaps the caller) may stand before it; a program's own output has other text before it.
_PANIC: Final = re.compile(r"^(?:\[[^\]\n]{1,40}\] ?)*Kernel panic - not syncing[^\n]*", re.MULTILINE)
_PANIC_END: Final = re.compile(r"---\[ end Kernel panic|Rebooting in |reboot: ")
_OOPS: Final = re.compile(r"^(?:\[[^\]\n]{1,40}\] ?)*(?:Internal error: |Unable to handle kernel |BUG: )", re.MULTILINE)
_MARKER: Final = re.compile(r"\x1e[^\x1e\n]{1,100}\x1e")
_LINE_END: Final = re.compile(r"\r+\n")
_PANIC_GRACE: Final = 2.0
"""Seconds that the rest of a panic's text is waited for."""

_TICK: Final = 1.0


class Console:
    """Text of a guest's console, and waiting for it. All methods may be called from any thread."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.changed = threading.Condition()
        """Notified on new text and on the end; whoever changes what a `wait` predicate reads notifies it too."""
        self._limit = limit
        self._text = ""
        self._fresh: list[str] = []
        self._base = 0
        self._end = 0
        self._line = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._returns = ""
        self._last_output = time.monotonic()
        self._panic: int | None = None
        self._panic_seen = 0.0
        self._panic_complete = False
        self._oopses = 0
        self._lost: Callable[[], GuestError] | None = None
        self._closed = False

    # Feeding (event loop)

    def feed(self, data: bytes) -> None:
        """Take bytes from the guest. Line ends become newlines, what is no UTF-8 becomes U+FFFD."""
        text = self._returns + self._decoder.decode(data)
        # A tty and the kernel's own console driver put one return each before a newline.
        lines = text.rstrip("\r")
        self._returns = text[len(lines) :][-8:]
        text = _LINE_END.sub("\n", lines)
        with self.changed:
            self._last_output = time.monotonic()
            self._scan(text)
            self._fresh.append(text)
            self._end += len(text)
            # Joined only when somebody reads, or when it is time to forget: a flood must not copy megabytes for bytes.
            if self._end - self._base > self._limit * 5 // 4:
                self._join()
                drop = len(self._text) - self._limit
                self._text = self._text[drop:]
                self._base += drop
            self.changed.notify_all()

    def _join(self) -> str:
        if self._fresh:
            self._text += "".join(self._fresh)
            self._fresh.clear()
        return self._text

    def _scan(self, text: str) -> None:
        """Look at complete lines for signs of trouble. `_end` is still the position before `text`."""
        lines, newline, rest = (self._line + text).rpartition("\n")
        begin = self._end - len(self._line)
        self._line = rest[-4096:]
        # The last line of a panic has no newline.
        if self._panic is not None and _PANIC_END.search(lines + newline + rest):
            self._panic_complete = True
        if not newline:
            return
        self._oopses += sum(1 for _ in _OOPS.finditer(lines))
        if self._panic is None and (match := _PANIC.search(lines)):
            self._panic = begin + match.start()
            self._panic_seen = time.monotonic()
            self._panic_complete = _PANIC_END.search(lines + newline + rest, match.end()) is not None

    def close(self, lost: Callable[[], GuestError] | None = None) -> None:
        """No more text will come; `lost` makes the error that a wait then ends with."""
        with self.changed:
            self._closed = True
            self._lost = lost
            self.changed.notify_all()

    def forget_panic(self) -> None:
        """The guest was reset: an old panic is no news any more."""
        with self.changed:
            self._panic = None
            self._last_output = time.monotonic()

    # Reading

    @property
    def text(self) -> str:
        """All text so far (at most `LIMIT` characters)."""
        with self.changed:
            return self._join()

    @property
    def end(self) -> int:
        """Position after the last character so far."""
        with self.changed:
            return self._end

    @property
    def closed(self) -> bool:
        """The guest's end of the console is gone."""
        return self._closed

    @property
    def oopses(self) -> int:
        """How many lines looked like an Oops or a kernel BUG: information, not an error."""
        return self._oopses

    def since(self, position: int) -> tuple[str, int]:
        """Text from `position` on (or from the oldest that is kept) and the position after it."""
        with self.changed:
            return self._join()[max(position - self._base, 0) :], self._end

    def last_lines(self, count: int = _TAIL_LINES) -> list[str]:
        """The last lines with anything on them, without control characters."""
        with self.changed:
            tail = self._join()[-16384:]
        tail = _MARKER.sub("", tail)
        lines = [re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", line).rstrip() for line in tail.splitlines()]
        return [line[:_LINE_WIDTH] for line in lines if line][-count:]

    # Waiting

    def search(
        self,
        pattern: str | re.Pattern[str],
        start: int,
        timeout: float | None,
        *,
        what: str | None = None,
        stall: float | None = None,
        abort: Callable[[], Exception | None] | None = None,
    ) -> tuple[re.Match[str], int]:
        """Wait until `pattern` is found at or after position `start`; return the match and the position after it.

        `timeout` and `stall` (the longest silence of the console) are in seconds; `what` names the thing in the error;
        `abort` is asked on every change and gives an exception to end the wait with.
        A match longer than MATCH_LIMIT is not found. A str pattern is compiled with re.MULTILINE.
        Raises `GuestTimeoutError`, `GuestPanicError` (panic, and the pattern is not in the panic's text),
        `LostGuestError` or what else ended the guest.
        """
        regex = re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
        what = what or f"console text {regex.pattern!r}"
        deadline = None if timeout is None else time.monotonic() + timeout
        began = time.monotonic()
        scanned = start
        with self.changed:
            while True:
                at = max(start, scanned - MATCH_LIMIT, self._base) - self._base
                if match := regex.search(self._join(), at):
                    return match, self._base + match.end()
                scanned = self._end
                self._raise_if_over(start, what)
                if abort is not None and (reason := abort()) is not None:
                    raise reason
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    raise self.timeout_error(f"{what} did not come within {timeout:g} s")
                silent = now - max(self._last_output, began)
                if stall is not None and silent >= stall:
                    raise self._silent_error(stall, what)
                wait = _TICK
                if deadline is not None:
                    wait = min(wait, deadline - now)
                if stall is not None:
                    wait = min(wait, stall - silent)
                if self._panic is not None:
                    wait = min(wait, 0.1)
                self.changed.wait(max(wait, 0.001))

    def raise_if_silent(self, stall: float, what: str) -> None:
        """Raise `GuestTimeoutError` when the guest printed nothing for `stall` seconds."""
        with self.changed:
            if time.monotonic() - self._last_output >= stall:
                raise self._silent_error(stall, what)

    def _silent_error(self, stall: float, what: str) -> GuestTimeoutError:
        return self.timeout_error(f"the guest printed nothing for {stall:g} s while waiting for {what}")

    def raise_if_over(self, start: int, what: str) -> None:
        """Raise when the guest panicked after position `start` or is gone; `what` says what was waited for."""
        with self.changed:
            self._raise_if_over(start, what)

    def _raise_if_over(self, start: int, what: str) -> None:
        if self._panic is not None and self._panic >= start and self._panic_told:
            raise self.panic_error(what)
        if self._closed:
            if self._lost is not None:
                error = self._lost()
                error.message += f" while waiting for {what}"
                raise error
            raise LostGuestError(f"the guest's console closed while waiting for {what}", console=self.last_lines())

    @property
    def _panic_told(self) -> bool:
        """The panic's text has come, as far as it will."""
        return self._closed or self._panic_complete or time.monotonic() - self._panic_seen > _PANIC_GRACE

    @property
    def panicked(self) -> bool:
        """A kernel panic was seen since the last reset."""
        return self._panic is not None

    def panic_error(self, what: str) -> GuestPanicError:
        """The error for a panic that was seen."""
        with self.changed:
            at = max((self._panic or 0) - self._base, 0)
            line = self._join()[at : at + 300].partition("\n")[0]
        return GuestPanicError(
            f"the guest's kernel panicked while waiting for {what}: {line}", console=self.last_lines()
        )

    def timeout_error(self, message: str) -> GuestTimeoutError:
        """The error for a wait that reached its limit, with the last console lines."""
        return GuestTimeoutError(message, console=self.last_lines())
