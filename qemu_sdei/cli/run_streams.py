"""`run -- COMMAND` by the agent's channel: the command's own streams, while its guest is watched at its console."""

from __future__ import annotations

import argparse
import re
import sys
import time
from typing import TYPE_CHECKING, Final

from qemu_sdei.cli.carry import carry, output, wants_terminal
from qemu_sdei.cli.output import Progress, print_json, say
from qemu_sdei.cli.own_terminal import terminal_size
from qemu_sdei.cli.screen import raw
from qemu_sdei.cli.terminal import MarkerFilter
from qemu_sdei.errors import GuestTimeoutError, LostGuestError
from qemu_sdei.guest.exec_frames import Stream
from qemu_sdei.guest.exec_session import MAIN, ExecSession

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest

KEPT: Final = 4 << 20
"""Bytes of each stream that are kept for --json."""
_MARKER: Final = re.compile(r"\x1eqemu-sdei:[0-9A-Za-z]{1,64}:([a-z]{1,16})(?::([a-z0-9]{0,16}))?\x1e\n?")
_TAIL: Final = 128


class NoAgentError(Exception):
    """The guest's kernel has no driver for the agent's card: the command runs on the console."""


class Kept:
    """The newest bytes of the streams, for --json."""

    def __init__(self) -> None:
        self._all = {Stream.OUTPUT: bytearray(), Stream.ERRORS: bytearray()}
        self._both = bytearray()

    def __call__(self, stream: Stream, data: bytes) -> None:
        """A `Sink`."""
        for kept in (self._all[stream], self._both):
            kept += data
            del kept[:-KEPT]

    def document(self, status: int) -> dict[str, object]:
        """What --json prints."""
        return {
            "status": status,
            "output": self._both.decode(errors="replace"),
            "stdout": self._all[Stream.OUTPUT].decode(errors="replace"),
            "stderr": self._all[Stream.ERRORS].decode(errors="replace"),
        }


def run_streams(guest: Guest, args: argparse.Namespace, progress: Progress) -> int:
    """Wait for the command of `guest`, which is started, with the user's streams as its own; return its status.

    Raises:
        NoAgentError: it runs on the console. As `Guest.wait_command` else.
    """
    kept = Kept() if args.json else None

    def sink(stream: Stream, data: bytes) -> None:
        progress.done()
        (kept or output)(stream, data)

    terminal = kept is None and wants_terminal(None)
    # As long as the guest is this process's its directory is known, also between two hosts' processes.
    session = ExecSession(
        lambda: guest.placement.directory.path, MAIN, None, sink, terminal=terminal, size=terminal_size()
    )
    watch = _Watch(guest, session, args, progress)
    try:
        status = carry(session, watch, terminal=terminal)
    except _EndedApartError as end:
        status = end.status
    finally:
        session.close()
    progress.done()
    if kept is not None:
        print_json(kept.document(status))
    return status


class _EndedApartError(Exception):
    """The command has ended, and the guest said so on its console."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Watch:
    """Looks after a guest whose command runs: what the console says, how long it is silent."""

    def __init__(self, guest: Guest, session: ExecSession, args: argparse.Namespace, progress: Progress) -> None:
        self._guest, self._session, self._progress = guest, session, progress
        self._verbose, self._timeout = bool(args.verbose), args.timeout
        self._began = time.monotonic()
        self._position = 0
        self._shown = MarkerFilter()
        self._tail = ""
        self._exit: int | None = None

    def __call__(self) -> None:
        """Raises `GuestError` and below, `NoAgentError`."""
        console = self._guest.console_text
        what = "the command to end" if self._session.started else "the command to start"
        if self._session.started:
            self._progress.done()
        self._look()
        try:
            console.raise_if_over(0, what)
        except LostGuestError:
            if self._exit is not None:
                raise _EndedApartError(self._exit) from None
            raise
        if console.closed:
            raise LostGuestError(f"the guest's console closed while waiting for {what}")
        if self._timeout is not None and time.monotonic() - self._began >= self._timeout:
            raise console.timeout_error(f"{what} was waited for {self._timeout:g} s")
        if not self._session.started:
            try:
                console.raise_if_silent(self._guest.options.boot_timeout, what)
            except GuestTimeoutError:
                if console.panicked:
                    raise console.panic_error(what) from None
                raise

    def _look(self) -> None:
        text, self._position = self._guest.console_text.since(self._position)
        if not text:
            return
        if self._verbose:
            self._progress.done()
            # A marker may come in pieces.
            raw(sys.stderr).write(self._shown.feed(text.encode("utf-8", "replace")).decode("utf-8", "replace"))
            sys.stderr.flush()
        for word, state in _MARKER.findall(self._tail + text):
            if word == "channel" and state != "ready":
                say(
                    "qemu-sdei: warning: this kernel has no virtio_console: the command runs on the console. It gets "
                    "no standard input, both of its streams are one, and bytes that are no text are lost",
                    error=True,
                )
                raise NoAgentError
            if word == "exit" and state.isdigit():
                self._exit = int(state) & 0xFF
        self._tail = (self._tail + text)[-_TAIL:]
