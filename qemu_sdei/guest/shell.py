"""Commands in the guest's shell, and their output and status on a console that also shows echo and kernel messages.

Markers are lines that start and end with the control character RS (0x1e), which nothing else prints, and carry a random
number, so that no output can be taken for one. Our initramfs (`qemu_sdei.boot.initramfs`) prints the same kind.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

RS: Final = "\x1e"
_PREFIX: Final = "qemu-sdei"
_CHUNK: Final = 600
"""Characters a line: a terminal takes 4095."""

# A printk record that came in the middle of a line of the shell's.
_PRINTK: Final = re.compile(r"\[ {0,5}\d{1,7}\.\d{6}\][^\n\x1e]*\n")


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest left: its exit status (0..255) and what it printed, both streams together."""

    status: int
    """Exit status, 0 to 255."""
    output: str
    """Standard output and standard error together, in the order in which they came."""


def marker(nonce: str, what: str) -> str:
    """The marker `what` (`begin`, `shell`, `exit:0`) as the guest prints it."""
    return f"{RS}{_PREFIX}:{nonce}:{what}{RS}"


def marker_pattern(nonce: str, what: str) -> re.Pattern[str]:
    """A pattern for the marker whose text is the regular expression `what`."""
    return re.compile(f"{RS}{_PREFIX}:{re.escape(nonce)}:(?:{what}){RS}")


def request(command: str, nonce: str) -> list[str]:
    """Lines to type at the guest's shell so that it runs `command` and prints markers with `nonce` around its output.

    The first is to be typed by itself, the others when the marker `ready` shows (`ready_pattern`): the terminal's mode
    does not change under them then. They are read without echo, and so not by the shell: without echo busybox's has no
    line editor, and takes a read that SIGCHLD interrupts for the end of its input.

    The command goes over as base64: no quoting, no length limit, and its echo cannot be mistaken for output. It runs in
    the shell itself (a `cd` or a variable stays, an `exit` ends the shell), its standard input is /dev/null. A syntax
    error does not end the shell. What `_run` is: `qemu_sdei/data/profile`.
    """
    text = base64.b64encode(command.encode(errors="surrogateescape")).decode()
    lines = [text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK)] or [""]
    return [f"_N={nonce} _L={len(lines)}; _run", *lines]


def ready_pattern(nonce: str) -> re.Pattern[str]:
    """A pattern for the marker that follows the first line of a request."""
    return marker_pattern(nonce, "ready")


def reply_pattern(nonce: str) -> re.Pattern[str]:
    """A pattern for the last marker of a reply."""
    return marker_pattern(nonce, r"exit:(\d+)")


def parse_reply(text: str, nonce: str) -> CommandResult | None:
    """Output and status in console text `text`, or None while they are not complete.

    Kernel messages stay part of the output (nobody can tell them from a `dmesg`), unless they cut a marker.
    """
    begin = marker(nonce, "begin") + "\n"
    for candidate in (text, _PRINTK.sub("", text)):
        start = candidate.rfind(begin)
        end = reply_pattern(nonce).search(candidate, max(start, 0))
        if start >= 0 and end is not None:
            # The newline before the marker is ours: it makes the marker a line of its own after any output.
            return CommandResult(int(end[1]), candidate[start + len(begin) : end.start()].removesuffix("\n"))
    return None


class OutputStream:
    """Takes console text in pieces; gives what is between `begin` and `exit` as it comes."""

    def __init__(self, nonce: str) -> None:
        self._begin = re.compile(marker_pattern(nonce, "begin").pattern + "\n")
        self._exit = marker_pattern(nonce, r"exit:(\d+)")
        self._buffer = ""
        self._again = False
        self.begun = False
        self.log = ""
        """What came before the command's output, of the last `feed`."""
        self.status: int | None = None
        """The command's exit status once it ended."""

    def feed(self, text: str) -> str:
        """Output that is certain after `text` came."""
        self.log = ""
        if self.status is not None:
            return ""
        self._buffer += text
        if not self.begun:
            if (match := self._begin.search(self._buffer)) is None:
                # Of a kernel that seemed to have left, and had not.
                if self._again and (end := self._exit.search(self._buffer)):
                    self.status = int(end[1])
                self.log = self._release()
                return ""
            self.begun = True
            self.log = self._buffer[: match.start()]
            self._buffer = self._buffer[match.end() :]
        self._buffer = self._begin.sub("", self._buffer)
        if match := self._exit.search(self._buffer):
            self.status = int(match[1])
            out, self._buffer = self._buffer[: match.start()], ""
            return out
        return self._release()

    def boots_again(self) -> None:
        """Another kernel begins: what comes is its boot, until the command starts again."""
        self.begun, self._again = False, True

    def _release(self) -> str:
        """Take what cannot be the start of a marker: none is longer than 100 characters."""
        at = self._buffer.find(RS, max(0, len(self._buffer) - 100))
        cut = len(self._buffer) if at < 0 else at
        out, self._buffer = self._buffer[:cut], self._buffer[cut:]
        return out
