"""Client of a guest's owner socket (`owner.py`)."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qemu_sdei import jsonline, message_log, rundir, stopped
from qemu_sdei.errors import GuestError, GuestTimeoutError, LostGuestError, SdeiError, UsageError
from qemu_sdei.message_log import CONTROL

_ANSWER: Final = "the supervisor's answer"
_MAX_LINE: Final = 1 << 20
_LAST_WORD: Final = 15.0
"""Seconds for the owner to say what became of a request that was given up."""
_CONNECT: Final = 10.0
_STOPPED: Final = 5.0
"""Seconds for which the owner may be stopped."""
_LOOK: Final = 0.5
_RETRY: Final = 0.05
_SILENCE: Final = 60.0
"""Seconds without a word from the owner after which it is given up, if the request itself has no longer wait in it."""


def ask(
    path: Path,
    command: str,
    arguments: dict[str, Any],
    progress: Callable[[dict[str, Any]], None],
    *,
    identity: str = "",
    patience: float = _SILENCE,
) -> dict[str, Any]:
    """Have the owner behind the socket `path` do something; return its result.

    Args:
        path: the owner socket.
        command: what to do.
        arguments: its fields.
        progress: is given each report.
        identity: which guest is meant (`rundir.Running.identity`); "": whichever is there.
        patience: seconds without any word.

    Raises:
        UsageError: there is no owner, or it cannot be done. `GuestError`: it did not work. `ProtocolError`: no answer.
        LostGuestError: the owner went away. `GuestTimeoutError`: it says nothing, or is stopped.

    An exception that comes from outside (a signal's) has it given up, and gets a note of what became of it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT)
        try:
            _connect(connection, path, command)
        except OSError:
            if any(guest.path == path.parent and not guest.owned for guest in rundir.running()):
                name = path.parent.name
                raise UsageError(
                    f"guest {name!r} has no owner to do this: take it over first, by `qemu-sdei attach {name}`"
                ) from None
            raise UsageError(
                f"guest {path.parent.name!r} cannot be asked for {command}: its QEMU is not run by qemu-sdei"
            ) from None
        try:
            request = {"cmd": command, **arguments, "identity": identity}
            CONTROL.sent(f"supervisor of {path.parent.name}", request)
            # What it says to others for us happens in its process.
            more = {"messages": True} if message_log.wanted() else {}
            connection.sendall(jsonline.encode(request | more))
            words = _Words(connection, path.parent, command, patience)
            try:
                result = _outcome(words, progress)
            except Exception:
                raise
            except BaseException as end:
                end.add_note(_given_up(connection, words, command))
                raise
            if result is not None:
                return result
        except OSError:
            pass
    raise LostGuestError(f"the guest's owner went away during {command}")


def _connect(connection: socket.socket, path: Path, command: str) -> None:
    """Raises `OSError`: nobody listens there. `GuestTimeoutError`: the owner takes no clients, or is stopped."""
    began = time.monotonic()
    looked = False
    while True:
        try:
            connection.connect(str(path))
            return
        except BlockingIOError:  # its queue is full: with a timeout Python does not wait for room in it
            waited = time.monotonic() - began
            name = path.parent.name
            if waited >= _STOPPED and not looked:
                looked = True
                if found := stopped.of_guest(path.parent):
                    raise GuestTimeoutError(f"guest {name!r} does not answer {command}: {found}") from None
            if waited >= _CONNECT:
                raise GuestTimeoutError(
                    f"the supervisor of guest {name!r} took no client within {_CONNECT:g} s: {command} was not begun"
                ) from None
            time.sleep(_RETRY)


class _Words:
    """The lines that the owner of the guest in `directory` says; an owner that is stopped is not waited for long."""

    def __init__(self, connection: socket.socket, directory: Path, command: str, patience: float) -> None:
        self._connection, self._directory, self._command = connection, directory, command
        self.whom = f"supervisor of {directory.name}"
        """Who says them, for the debug log."""
        self.patience = patience
        """Seconds without any word."""
        self._owner = stopped.owner(directory)
        self._lines = jsonline.Lines(_MAX_LINE, _ANSWER)

    def next(self) -> dict[str, Any] | None:
        """What it says next; None at the end. Raises `GuestTimeoutError`, `ProtocolError`, `OSError`."""
        began = running = time.monotonic()
        before = None
        while (line := self._lines.next()) is None:
            self._connection.settimeout(_LOOK)
            try:
                data = self._connection.recv(1 << 16)
            except TimeoutError:
                now = None if self._owner is None else stopped.look(self._owner)
                if now is None or not now.stopped or (before is not None and now.cpu != before.cpu):
                    running = time.monotonic()
                before = now
                self._check(began, running)
                continue
            if not data:
                return None
            self._lines.feed(data)
        return jsonline.decode(line, _ANSWER)

    def _check(self, began: float, running: float) -> None:
        """`began`: when its last word came; `running`: when it was last seen to run."""
        now = time.monotonic()
        if now - running >= min(_STOPPED, self.patience) and self._owner is not None:
            name = self._directory.name
            raise GuestTimeoutError(
                f"guest {name!r} does not answer {self._command}: {stopped.described('supervisor', self._owner)}"
            )
        if now - began >= self.patience:
            raise GuestTimeoutError(
                f"the guest's supervisor said nothing for {self.patience:g} s during {self._command}"
                f"{stopped.reason(self._directory)}"
            )


def _outcome(words: _Words, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """What the owner says at the end; None: it hung up."""
    while (message := words.next()) is not None:
        if "message" in message:
            message_log.repeat(message["message"])
            continue
        CONTROL.received(words.whom, message)
        if not isinstance(message.get("progress"), dict):
            return jsonline.SUPERVISOR.result(message, _ANSWER)
        progress(message["progress"])
    return None


def _given_up(connection: socket.socket, words: _Words, command: str) -> str:
    """Say that nothing more is wanted; return in words what had been done by then."""
    try:
        words.patience = _LAST_WORD
        connection.shutdown(socket.SHUT_WR)
        result = _outcome(words, lambda step: None)
    except GuestTimeoutError:
        result = None
    except GuestError as error:
        return str(error)
    except (OSError, SdeiError):
        result = None
    if result is None:
        return f"{command} was given up; what became of it the guest's owner does not say: see `qemu-sdei list`"
    where = f": the guest is {result['destination']!r} now" if "destination" in result else ""
    return f"too late to give up, {command} is done{where}"
