"""Client of a guest's owner socket (`owner.py`)."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from qemu_sdei import rundir
from qemu_sdei.errors import GuestError, LostGuestError, ProtocolError, SdeiError, UsageError

_MAX_LINE: Final = 1 << 20
_LAST_WORD: Final = 15.0
"""Seconds for the owner to say what became of a request that was given up."""
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
        UsageError: there is no owner, or it cannot be done. `GuestError`: it did not work.
        LostGuestError: the owner went away.

    An exception that comes from outside (a signal's) has it given up, and gets a note of what became of it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        try:
            connection.connect(str(path))
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
            connection.sendall(json.dumps({"cmd": command, **arguments, "identity": identity}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                try:
                    result = _outcome(lines, progress)
                except Exception:
                    raise
                except BaseException as end:
                    end.add_note(_given_up(connection, lines, command))
                    raise
                if result is not None:
                    return result
        except TimeoutError:
            raise GuestError(f"the guest's owner said nothing for {patience:g} s during {command}") from None
        except OSError:
            pass
    raise LostGuestError(f"the guest's owner went away during {command}")


def _outcome(lines: BinaryIO, progress: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """What the owner says at the end; None: it hung up."""
    while line := lines.readline(_MAX_LINE):
        message = _parse(line)
        if isinstance(message.get("progress"), dict):
            progress(message["progress"])
        elif message.get("ok") is True and isinstance(message.get("result"), dict):
            return dict(message["result"])
        else:
            error = message.get("error")
            text = str(error.get("message")) if isinstance(error, dict) else "it does not say why"
            usage = isinstance(error, dict) and error.get("kind") == "usage"
            raise UsageError(text) if usage else GuestError(text)
    return None


def _given_up(connection: socket.socket, lines: BinaryIO, command: str) -> str:
    """Say that nothing more is wanted; return in words what had been done by then."""
    try:
        connection.settimeout(_LAST_WORD)
        connection.shutdown(socket.SHUT_WR)
        result = _outcome(lines, lambda step: None)
    except GuestError as error:
        return str(error)
    except (OSError, SdeiError):
        result = None
    if result is None:
        return f"{command} was given up; what became of it the guest's owner does not say: see `qemu-sdei list`"
    where = f": the guest is {result['destination']!r} now" if "destination" in result else ""
    return f"too late to give up, {command} is done{where}"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise ProtocolError("the owner's answer is no JSON") from None
    if not isinstance(message, dict):
        raise ProtocolError("the owner's answer is no JSON object")
    return message
