"""The heartbeat of a Linux guest: a loop in its shell, which answers each number by a line in the kernel's log.

It comes behind all that the kernel has said before, so that who sees it has seen that too. The loop starts no process:
it must be quick, and say nothing of memory that is gone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qemu_sdei.errors import GuestPanicError, GuestTimeoutError, UsageError
from qemu_sdei.guest.guest import Guest

_PROBE: Final = "qemu_sdei_fuzz"
_HANDLES: Final = "ghes_do_proc"
"""Linux' function that goes through the sections of a status block, whether or not it may print what they say."""
_SETUP: Final = f"""
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
echo on >/proc/sys/kernel/printk_devkmsg
echo 0 >/proc/sys/kernel/panic
dmesg -n 7
cd /sys/kernel/tracing
echo 'p:{_PROBE} {_HANDLES}' >kprobe_events || {{
    n=$(grep -o -m 1 ' {_HANDLES}[.][.a-z0-9]*$' /proc/kallsyms | tr -d ' ')
    test -n "$n" && echo "p:{_PROBE} $n" >kprobe_events
}}
echo 1 >events/kprobes/{_PROBE}/enable
cat kprobe_profile
"""
"""printk.devkmsg: Linux takes ten lines of a program in five seconds otherwise. A function of which the compiler made
another one has a suffix.
"""
_READY: Final = 240.0
_LONGEST: Final = 600.0


@dataclass(frozen=True)
class Beat:
    """One answer."""

    position: int
    """Of the console, behind it."""
    handled: int | None
    """How many blocks the kernel has gone through since it booted; None: it cannot be counted."""


class Pulse:
    """The loop in one guest's shell."""

    def __init__(self, word: str, counts: bool) -> None:
        self.word = word
        """What its lines begin with; nobody else knows it."""
        self.counts = counts
        """Whether the kernel counts the blocks that it goes through."""
        self._number = 0

    @classmethod
    def start(cls, guest: Guest) -> Pulse:
        """Have the shell of `guest` run the loop, and nothing else any more.

        Raises:
            UsageError: it has no shell of ours.
        """
        try:
            guest.wait_shell(_READY)
        except GuestTimeoutError:
            raise UsageError(
                f"guest {guest.name!r} has no shell of ours that answers: it must have booted with our own initramfs, "
                "and its shell must be waiting for a command"
            ) from None
        found = guest.run(_SETUP, timeout=_LONGEST)
        made = cls(f"fuzz-{secrets.token_hex(6)}", _PROBE in found.output)
        read = "read -r _ h _ </sys/kernel/tracing/kprobe_profile;" if made.counts else ""
        guest.write(f'stty -echo; while read -r n; do {read} echo "<1>{made.word} $n ${{h:-}}." >/dev/kmsg; done\r')
        made.beat(guest, _READY)
        return made

    def beat(self, guest: Guest, limit: float, over: Callable[[], Exception | None] | None = None) -> Beat | None:
        """Ask, and wait for the answer.

        Args:
            guest: the guest, or a copy of it.
            limit: seconds.
            over: asked now and then; an exception of its ends the wait.

        Returns None where none came, or the kernel panicked, or the loop is gone: another shell has read the number.
        """
        self._number += 1
        start = guest.console_text.end
        guest.write(f"{self._number}\r")
        pattern = re.compile(rf"{self.word} {self._number} (\d*)\.|sh: {self._number}: not found")
        try:
            match, end = guest.console_text.search(pattern, start, limit, what="the guest's heartbeat", abort=over)
        except (GuestTimeoutError, GuestPanicError):
            return None
        return None if match[1] is None else Beat(end, int(match[1]) if match[1] else None)

    def without(self, text: str) -> str:
        """Console text without its lines."""
        return re.sub(rf"[^\n]*{self.word}[^\n]*\n?", "", text)
