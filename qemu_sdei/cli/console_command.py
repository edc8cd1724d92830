"""`qemu-sdei console`: look on at the console of a guest that runs elsewhere, or type there."""

from __future__ import annotations

import argparse
import base64
import os
import secrets
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.console_size import ConsoleSize
from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, say
from qemu_sdei.errors import LostGuestError, SdeiError, UsageError

if TYPE_CHECKING:
    from qemu_sdei.cli.terminal import Session
    from qemu_sdei.rundir import Running

_BEGUN: Final = 15.0
_PART: Final = 4096
_AGAIN: Final = 5.0
"""Seconds for a guest whose supervisor has gone to have another one, or to have ended."""
_LOOK: Final = 0.1


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "console",
        description="Connect the terminal to the console of a guest that runs in the background or in another "
        "terminal. Ctrl-] leaves; the guest runs on. One terminal types at a time, any number look on: where somebody "
        "types already, look on, or --take the console.",
    )
    add_guest(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--look", action="store_true", help="only look on, type nothing")
    how.add_argument("--take", action="store_true", help="type, also where another terminal does: that one looks on")
    add_verbosity(parser, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei import rundir
    from qemu_sdei.cli.terminal import End, Session

    guest = rundir.find(args.guest)
    session = Session(asks=False)
    source = RemoteConsole(guest, session, look=args.look, force=args.take)
    try:
        source.begin()
        if not args.quiet and sys.stdin.isatty():
            what = "you look on" if args.look else source.role
            say(f"qemu-sdei: console of guest {guest.name!r}: {what}; Ctrl-] leaves it", error=True)
        end = session.run(source, typing=not args.look)
    finally:
        source.close()
        session.close()
    if source.failure is not None:
        raise source.failure
    if not args.quiet and sys.stdin.isatty():
        words = "the guest has ended" if end is End.ENDED else f"guest {source.name!r} runs on"
        say("", f"qemu-sdei: {words}", error=True)
    return 0


class RemoteConsole:
    """The console of a guest of another process: a `terminal.Source`."""

    def __init__(self, guest: Running, session: Session, *, look: bool, force: bool) -> None:
        """`look`: nothing is to be typed. `force`: type, whoever types now."""
        self.failure: SdeiError | None = None
        """Why it ended, where that was not the guest's end."""
        self.role = "you type"
        """What the user does there, in words."""
        self._guest, self._session = guest, session
        self._token = "" if look else secrets.token_hex(8)
        self._who = f"process {os.getpid()} (`qemu-sdei console`)"
        self._force = force
        self._typist = ""
        self._size = ConsoleSize(lambda: self._guest.path)
        self._closed = False
        self._begun = threading.Event()
        self._ended = False

    @property
    def name(self) -> str:
        """The guest's name now: it may have migrated."""
        return self._guest.name

    def begin(self) -> None:
        """Connect. Raises `SdeiError`: it cannot be."""
        threading.Thread(target=self._follow, daemon=True).start()
        if not self._begun.wait(_BEGUN):
            raise LostGuestError(f"the supervisor of guest {self.name!r} did not give its console within {_BEGUN:g} s")
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Hang up."""
        self._closed = True

    def _follow(self) -> None:
        from qemu_sdei.guest.supervisor_client import ask

        wish = {"token": self._token, "who": self._who, "force": self._force}
        try:
            while True:
                try:
                    ask(self._guest.owner, "terminal", wish, self._hear, identity=self._guest.identity)
                    return
                except LostGuestError:
                    # It is just ending; or its terminal has left it to a process in the background.
                    if not self._found_again():
                        return
        except _ClosedError:
            pass
        except SdeiError as error:
            self.failure = None if self._closed else error
        finally:
            self._ended = True
            self._begun.set()

    def _found_again(self) -> bool:
        """Whether the guest runs on, with another supervisor. Raises `LostGuestError`: it does without any."""
        from qemu_sdei import rundir

        deadline = time.monotonic() + _AGAIN
        while there := [each for each in rundir.running() if each.identity == self._guest.identity]:
            self._guest = there[0]
            if self._guest.owned and self._guest.owner.exists() and time.monotonic() > deadline - _AGAIN + _LOOK:
                return True
            if time.monotonic() > deadline:
                raise LostGuestError(
                    f"guest {self.name!r} has lost its supervisor, which was killed: `qemu-sdei attach {self.name}` "
                    "takes it over"
                )
            time.sleep(_LOOK)
        return False

    def _hear(self, step: dict[str, Any]) -> None:
        if self._closed:
            raise _ClosedError
        data = step.get("data")
        if isinstance(data, str):
            try:
                self._session.put(base64.b64decode(data))
            except ValueError:
                return
        if "typist" in step:
            self._typist = str(step["typist"])
            if step.get("you") is True:
                self.role = "you type"
            elif self._token:
                self.role = f"you look on, {self._typist or 'nobody'} types (--take takes it over)"
            self._begun.set()

    def write(self, data: bytes) -> bool:
        """See `Source`."""
        from qemu_sdei import rundir
        from qemu_sdei.guest.supervisor_client import ask

        for start in range(0, len(data), _PART):
            part = base64.b64encode(data[start : start + _PART]).decode()
            wish = {"token": self._token, "who": self._who, "data": part}
            if not self._guest.path.exists():  # it has migrated, and has another name
                self._guest = next((g for g in rundir.running() if g.identity == self._guest.identity), self._guest)
            try:
                ask(self._guest.owner, "type", wish, lambda step: None, identity=self._guest.identity)
            except UsageError:
                return False
            except LostGuestError:
                return True  # it ends: `ended` says so
        return True

    def backlog(self) -> int:
        """See `Source`."""
        return 0

    def listens(self) -> bool:
        """See `Source`."""
        return True

    def end_input(self, line_ended: bool) -> None:
        """See `Source`; the guest is another terminal's, and goes on."""

    def ended(self) -> bool:
        """See `Source`."""
        return self._ended

    def lost_words(self) -> str:
        """See `Source`."""
        return f"{self._typist or 'somebody else'} types at this console: you look on (--take takes it over)"

    def size(self, rows: int, columns: int) -> None:
        """See `Source`."""
        from qemu_sdei import rundir

        if self.role == "you type" and (self._guest.path / rundir.exec_socket(0)).exists():
            self._size.is_now(rows, columns)


class _ClosedError(Exception):
    """Nobody wants to hear more."""
