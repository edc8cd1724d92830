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
from copy import copy
from dataclasses import replace
from typing import Final

from qemu_sdei.errors import GuestError, GuestPanicError, GuestTimeoutError, LostGuestError
from qemu_sdei.vm.kernel_messages import KernelWords, Panic

LIMIT: Final = 4 << 20
"""Characters of console text that are kept."""
MATCH_LIMIT: Final = 64 << 10
"""A match of `expect` is found if it is no longer than this: what a search goes back over when new text came."""
_TAIL_LINES: Final = 30
_LINE_WIDTH: Final = 300

_MARKER: Final = re.compile(r"\x1e[^\x1e\n]{1,100}\x1e")
_LINE_END: Final = re.compile(r"\r+\n")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PANIC_LINES: Final = 40
_PANIC_TEXT: Final = 16 << 10
"""Lines and characters of a panic that are shown."""
_CRUMBS: Final = 1024
_TICK: Final = 1.0


class Console:
    """Text of a guest's console, and waiting for it. All methods may be called from any thread."""

    def __init__(self, limit: int = LIMIT, *, panic_ends: bool = True) -> None:
        """`panic_ends` (can be set later): a wait ends when the guest's kernel panics; else only that kernel has."""
        self.changed = threading.Condition()
        """Notified on new text and on the end; whoever changes what a `wait` predicate reads notifies it too."""
        self._limit = limit
        self._text = ""
        self._fresh: list[str] = []
        self._crumbs: list[str] = []
        self._base = 0
        self._end = 0
        self.words = KernelWords()
        """What the kernel said of itself; under `changed`."""
        self.panic_ends = panic_ends
        self._known = -1
        """Position of a panic that the caller has been told of."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._returns = ""
        self._last_output = time.monotonic()
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
            self.words.feed(text, self._end)
            self._crumbs.append(text)
            if len(self._crumbs) >= _CRUMBS:
                self._sweep()
            self._end += len(text)
            # Joined only when somebody reads, or when it is time to forget: a flood must not copy megabytes for bytes.
            if self._end - self._base > self._limit * 5 // 4:
                self._join()
                drop = len(self._text) - self._limit
                self._text = self._text[drop:]
                self._base += drop
            self.changed.notify_all()

    def recall(self, data: bytes, *, reset_at: int = -1) -> None:
        """As `feed`, with what was printed before the guest came here: from another owner, from a directory.

        A panic is no news if another kernel has begun since, or the machine was reset (last at position `reset_at`).
        """
        self.feed(data)
        with self.changed:
            panic = self.words.panic
            if panic is not None and (self.words.succeeded or panic.position < reset_at):
                self.words.lives(forget=True)

    def _sweep(self) -> None:
        """A guest that prints byte by byte must not have an object of ours for each of them."""
        self._fresh.append("".join(self._crumbs))
        self._crumbs.clear()

    def _join(self) -> str:
        if self._crumbs:
            self._sweep()
        if self._fresh:
            self._text += "".join(self._fresh)
            self._fresh.clear()
        return self._text

    def close(self, lost: Callable[[], GuestError] | None = None) -> None:
        """No more text will come; `lost` makes the error that a wait then ends with."""
        with self.changed:
            self._closed = True
            self._lost = lost
            self.changed.notify_all()

    def forget_panic(self) -> None:
        """The guest was reset: an old panic is no news any more."""
        with self.changed:
            self.words.reset()
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
        return self.words.oopses

    def since(self, position: int) -> tuple[str, int]:
        """Text from `position` on (or from the oldest that is kept) and the position after it."""
        with self.changed:
            return self._join()[max(position - self._base, 0) :], self._end

    def last_lines(self, count: int = _TAIL_LINES) -> list[str]:
        """The last lines with anything on them, without control characters."""
        with self.changed:
            tail = self._join()[-16384:]
        return _shown(tail)[-count:]

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
                if self.words.panic is not None:
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
        panic = self.words.panic
        news = panic is not None and panic.position >= start and panic.position != self._known
        if news and (self._closed or self.words.told) and (self.panic_ends or (self._closed and self.panicked)):
            raise self.panic_error(what)
        if self._closed:
            if self._lost is not None:
                error = copy(self._lost())  # one failure is told to each wait
                error.message += f" while waiting for {what}"
                raise error
            raise LostGuestError(f"the guest's console closed while waiting for {what}", console=self.last_lines())

    @property
    def panicked(self) -> bool:
        """A kernel panic was seen since the last reset, that nobody has taken note of; where panics end no wait, and no
        kernel has begun since.
        """
        with self.changed:
            panic = self.words.panic
            if panic is None or panic.position == self._known:
                return False
            return self.panic_ends or not self.words.succeeded

    def panicked_since(self, position: int) -> bool:
        """A kernel panic was seen at or after `position`, whatever came then."""
        with self.changed:
            return any(panic.position >= position for panic in self.words.panics)

    def wait_panic(self, start: int, timeout: float) -> Panic:
        """Wait for the first panic at or after position `start`, and for its text.

        Raises `GuestTimeoutError`; `LostGuestError` or what else ended the guest.
        """
        deadline = time.monotonic() + timeout
        what = "a kernel panic"
        with self.changed:
            while True:
                found = next((panic for panic in self.words.panics if panic.position >= start), None)
                latest = self.words.panics[-1:] == [found]
                if found is not None and (not latest or self._closed or self.words.told):
                    at = max(found.position - self._base, 0)
                    lines = _shown(self._join()[at : at + _PANIC_TEXT])[:_PANIC_LINES]
                    return replace(found, lines=tuple(lines))
                if self._closed:
                    self._raise_if_over(self._end, what)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self.timeout_error(f"{what} did not come within {timeout:g} s")
                self.changed.wait(min(left, _TICK if found is None else 0.1))

    @property
    def claimed(self) -> int:
        """Position where a kernel seems to have begun, with nobody heard to leave; -1: nowhere. See `replaced`."""
        return self.words.claimed

    def replaced(self, position: int) -> None:
        """What was claimed at `position` is so: who knows more than the console tells says it."""
        with self.changed:
            self.words.replaced(position)
            self.changed.notify_all()

    def silent_panic(self, start: int) -> Panic | None:
        """A kernel began at or after `start`, and the one before had said nothing."""
        with self.changed:
            at = self.words.silent
            if at < start:
                return None
            return Panic("", at, tuple(_shown(self._join()[max(at - self._base, 0) :][:_PANIC_TEXT])[:_PANIC_LINES]))

    def taken(self, panic: Panic) -> None:
        """The caller knows of a panic: it ends no wait any more."""
        with self.changed:
            self._known = panic.position

    @property
    def left(self) -> int:
        """Position where the newest kernel that has left began to: it panicked, or made way for another one."""
        return self.words.left

    @property
    def begun(self) -> int:
        """Position where the newest kernel began to speak that no reset has started; -1: there was none."""
        return self.words.begun

    def alive(self, position: int) -> None:
        """The guest's shell has answered at `position`: another kernel's, or what looked like an end was only text."""
        with self.changed:
            if self.words.left <= position:
                self.words.lives(forget=not self.panic_ends)

    def replaced_since(self, position: int) -> bool:
        """The kernel that ran at `position` is not there any more: it panicked, or another one has begun."""
        with self.changed:
            words = self.words
            if words.begun >= position:
                return True
            silent = time.monotonic() - self._last_output
            return words.panic is not None and words.panic.position >= position and words.doomed(silent)

    def panic_error(self, what: str) -> GuestPanicError:
        """The error for a panic that was seen."""
        with self.changed:
            message = self.words.panics[-1].message if self.words.panics else ""
        return GuestPanicError(
            f"the guest's kernel panicked while waiting for {what}: Kernel panic - not syncing: {message}",
            console=self.last_lines(),
        )

    def timeout_error(self, message: str) -> GuestTimeoutError:
        """The error for a wait that reached its limit, with the last console lines."""
        return GuestTimeoutError(message, console=self.last_lines())


def _shown(text: str) -> list[str]:
    """The lines of console text that have anything on them, without control characters."""
    lines = (_CONTROL.sub("", line).rstrip() for line in _MARKER.sub("", text).splitlines())
    return [line[:_LINE_WIDTH] for line in lines if line]
