"""What is wrong with a kernel, by what it says on its console: warnings, oopses, stalls, panics, and the call traces.

The text is the guest's, and may be anything: it is looked at line by line, within limits, and what is kept of it are
words without control characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from qemu_sdei.printable import printable

MAX_FRAMES: Final = 16
_MAX_LINE: Final = 400
_MAX_LINES: Final = 20_000
_SHOWN: Final = 60
"""Lines of a trouble that are kept."""
_PREFIX: Final = re.compile(r"\[ {0,5}\d{1,9}\.\d{6}\] ?(?:\[[ \w]{1,20}\] ?)?")
_FRAME: Final = re.compile(r" ([\w.$]{1,120})\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: \[\w{1,60}\])?(?: \(\w+\))?\s*")
_PC: Final = re.compile(r"pc : ([\w.$]{1,120})\+0x[0-9a-f]{1,8}/")
_AT: Final = re.compile(r" at (?:([\w./-]{1,120}):\d+ )?([\w.$]{1,120})\+0x")
_SUFFIX: Final = re.compile(r"\.(?:isra|constprop|part|cold|llvm)(?:\.\d+)?")
_NUMBER: Final = re.compile(r"\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b")
_ENTERED: Final = re.compile(
    r"__sdei_asm_handler|el[01]_interrupt|el[01][ht]?_(?:32_|64_)?(?:irq|fiq|sync|error|svc|undef)(?:_handler)?|ret_from_fork"
    r"|irq_work_single|process_one_work|task_work_run|(?:__do|handle)_softirqs?"
)
"""Below these is what was interrupted, or who does what others have put off: another one each time."""
_REPORTING: Final = frozenset((
    "dump_backtrace", "show_stack", "dump_stack", "dump_stack_lvl", "show_regs", "panic", "vpanic", "nmi_panic",
    "print_report", "kasan_report", "kasan_check_range", "__warn", "report_bug", "warn_slowpath_fmt", "__warn_printk",
    "die", "die_kernel_fault", "make_task_dead", "oops_end", "bug_handler", "arm64_serror_panic", "do_serror",
    "arm64_force_sig_fault", "__do_kernel_fault", "do_bad_area", "do_page_fault", "do_translation_fault",
    "do_mem_abort", "do_alignment_fault", "brk_handler", "call_break_hook", "do_debug_exception", "ubsan_epilogue",
    "el1_abort", "el1_dbg", "el1h_64_sync", "el1h_64_sync_handler",
    "__ubsan_handle_out_of_bounds", "__ubsan_handle_shift_out_of_bounds", "fortify_panic", "__fortify_panic",
    "__fortify_report", "__asan_memcpy", "__asan_load8", "__asan_load4",
))  # fmt: skip
"""Frames of whoever reports a trouble, at the top of a call trace."""


class Level(Enum):
    """How bad it is, the worst last."""

    WARNING = "warning"
    STALL = "stall"
    OOPS = "oops"
    PANIC = "panic"


_SIGNS: Final[Sequence[tuple[re.Pattern[str], Level]]] = (
    (re.compile(r"Kernel panic - not syncing:? ?.*"), Level.PANIC),
    (re.compile(r"(?:watchdog: )?BUG: soft lockup.*|watchdog: .*hard LOCKUP.*"), Level.STALL),
    (re.compile(r"rcu: INFO: \w+ (?:self-)?detected .*stall.*|INFO: task .* blocked for more than .*"), Level.STALL),
    (re.compile(r"sdei: .*\bstuck\b.*"), Level.STALL),
    (re.compile(r"Unable to handle kernel .*|Internal error: .*|kernel BUG at .*|BUG: KASAN: .*|BUG: KFENCE: .*"),
     Level.OOPS),
    (re.compile(r"BUG: .*|SError Interrupt on CPU.*|Bad mode in .*|Unhandled .* abort: .*"), Level.OOPS),
    (re.compile(r"WARNING: .*|UBSAN: .*|(?:=+ )?INFO: possible .*deadlock.*|DEBUG_LOCKS_WARN_ON.*"), Level.WARNING),
    (re.compile(r"\w+: (?:page allocation failure|vmalloc error).*"), Level.WARNING),
)  # fmt: skip
_CONTINUES: Final = re.compile(r"Internal error: ")
"""Of an oops whose first line was another one."""


@dataclass(frozen=True)
class Trouble:
    """One thing that went wrong."""

    level: Level
    title: str
    """Its first line, without a time."""
    stack: tuple[str, ...] = ()
    """Functions of the call trace, without offsets, from where it happened outwards; those of the report itself, and
    what was interrupted, left out.
    """
    lines: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What two reports of the same fault have in common."""
        where = " < ".join(self.stack) if self.stack else _NUMBER.sub("N", self.title)
        return f"{self.level.value}: {where}"


def troubles(text: str) -> list[Trouble]:
    """All that went wrong, by a piece of console text, in its order. An oops that ends in a panic is two."""
    found: list[_Report] = []
    open_report: _Report | None = None
    for line in _lines(text):
        sign = _sign(line)
        if sign is not None and not (open_report is not None and open_report.takes(line, sign)):
            open_report = _Report(sign, line)
            found.append(open_report)
        elif open_report is not None:
            open_report.add(line)
            if "---[ end" in line:
                open_report = None
    return [each.trouble() for each in found]


def worst(found: Sequence[Trouble]) -> Trouble | None:
    """What to name a finding by: the first one of the worst level, but for a panic what led to it."""
    if not found:
        return None
    order = list(Level)
    level = max((each.level for each in found), key=order.index)
    if level is Level.PANIC:
        # Its own trace is of whoever panics; the oops before has that of the fault.
        cause = next((each for each in found if each.level in (Level.OOPS, Level.STALL)), None)
        if cause is not None:
            return Trouble(Level.PANIC, cause.title, cause.stack, cause.lines)
    return next(each for each in found if each.level is level)


def _lines(text: str) -> Iterator[str]:
    """Lines without their times, if they are not too many; a message that begins in a line is one of its own."""
    for number, raw in enumerate(text.splitlines()):
        if number >= _MAX_LINES:
            return
        # A prompt, or what a program prints, does not end its line.
        *before, last = _PREFIX.split(raw[:_MAX_LINE])
        yield from (part for part in before if part.strip())
        yield last


def _sign(line: str) -> Level | None:
    for pattern, level in _SIGNS:
        if pattern.match(line):
            return level
    return None


def own_frames(frames: Sequence[str]) -> tuple[str, ...]:
    """Functions of a call trace, the innermost first, without those that report and those that were interrupted."""
    start = 0
    while start < len(frames) and frames[start] in _REPORTING:
        start += 1
    end = start + 1
    while end < len(frames) and not _ENTERED.fullmatch(frames[end]):
        end += 1
    return tuple(frames[start:end][:MAX_FRAMES])


class _Report:
    """A trouble while its lines come."""

    def __init__(self, level: Level, title: str) -> None:
        self.level = level
        self.lines = [title]
        self._frames: list[str] = []
        self._pc = ""
        self._tracing = self._traced = False

    def takes(self, line: str, level: Level) -> bool:
        """Whether that line is about the same trouble, although others begin with such a line."""
        return level is self.level is Level.OOPS and not self._traced and _CONTINUES.match(line) is not None

    def add(self, line: str) -> None:
        if len(self.lines) < _SHOWN:
            self.lines.append(line)
        if not self._pc and (pc := _PC.match(line)):
            self._pc = pc[1]
        if line.startswith("Call trace:"):
            self._tracing = not self._traced
        elif self._tracing:
            if (frame := _FRAME.fullmatch(line)) is not None:
                self._frames.append(frame[1])
            elif not line.startswith(" "):
                # Others may have said something amid it; what is told of it ends with "---[ end trace" or "Code:".
                self._tracing = not line.startswith(("Code: ", "---["))
            self._traced = True

    def trouble(self) -> Trouble:
        title = printable(self.lines[0])[:_MAX_LINE]
        return Trouble(self.level, title, self._stack(), tuple(printable(line) for line in self.lines))

    def _stack(self) -> tuple[str, ...]:
        frames = [_SUFFIX.sub("", each) for each in self._frames]
        frames = list(own_frames(frames))
        if not frames:
            at = _AT.search(self.lines[0])
            name = self._pc or (at[2] if at else "")
            frames = [_SUFFIX.sub("", name)] if name else []
        return tuple(frames[:MAX_FRAMES])
