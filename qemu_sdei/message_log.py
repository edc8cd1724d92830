"""The messages that we exchange with QEMU, a backend, a supervisor or another host, as a debug log.

Whoever has to find out why a migration failed turns it on: a program by standard `logging` (the loggers `NAMES`, level
DEBUG), a user by `-vv`, and a client of the supervisor's socket for as long as its request lasts (`heard_by`). While
nobody listens no message is formatted. Secrets are left out, text of others is made printable, a long message is cut.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.printable import printable

if TYPE_CHECKING:
    import logging

_PACKAGE: Final = "qemu_sdei"
_DEBUG: Final = 10
"""`logging.DEBUG`."""
LIMIT: Final = 1500
"""Characters of a message that are shown."""
HIDDEN: Final = "(hidden)"
SECRETS: Final = frozenset(("token", "session", "nonce", "shell", "password", "secret"))
"""Fields of a message, at any depth, whose values are not shown. `session`: the secret of a migration between hosts;
`shell`: what marks the lines of our own init on a guest's console.
"""


@dataclass(frozen=True)
class Entry:
    """One message, as it is shown."""

    time: float
    """Seconds since the epoch."""
    logger: str
    """One of `NAMES`."""
    text: str


Listener = Callable[[Entry], None]

_listeners: tuple[Listener, ...] = ()


class MessageLog:
    """The messages of one kind: a logger, and who else listens."""

    def __init__(self, kind: str) -> None:
        """`kind`: the last part of the logger's name."""
        self.name = f"{_PACKAGE}.{kind}"

    @cached_property
    def _logger(self) -> logging.Logger:
        import logging

        logger = logging.getLogger(self.name)
        logger.addHandler(logging.NullHandler())  # on the terminal may be a guest's console
        return logger

    @property
    def _logs(self) -> bool:
        # Whoever wants the log has imported `logging`. To do so here would make `inject` slower for everybody.
        return "logging" in sys.modules and self._logger.isEnabledFor(_DEBUG)

    @property
    def wanted(self) -> bool:
        """Whether anybody listens."""
        return bool(_listeners) or self._logs

    def sent(self, to: str, message: object) -> None:
        """Note a message (JSON value) that was sent to `to`, in words."""
        self._note("->", to, message)

    def received(self, of: str, message: object) -> None:
        """Note a message (JSON value, or why there is none) that came from `of`."""
        self._note("<-", of, message)

    def _note(self, way: str, whom: str, message: object) -> None:
        if not self.wanted:
            return
        entry = Entry(time.time(), self.name, f"{printable(whom)} {way} {shown(message)}")
        self.tell(entry)
        for listener in _listeners:
            listener(entry)

    def tell(self, entry: Entry) -> None:
        """Give the logger a message that was noted in this process, or in another one."""
        if self._logs:
            record = self._logger.makeRecord(self.name, _DEBUG, __file__, 0, "%s", (entry.text,), None)
            record.created, record.msecs = entry.time, entry.time % 1 * 1000
            self._logger.handle(record)


QMP: Final = MessageLog("qmp")
"""QEMU's machine protocol: commands, answers, events."""
CONTROL: Final = MessageLog("control")
"""The sockets of a backend and of a supervisor."""
MIGRATION: Final = MessageLog("migration")
"""What two hosts say to each other while a guest migrates."""

_LOGS: Final = {log.name: log for log in (QMP, CONTROL, MIGRATION)}
NAMES: Final = tuple(_LOGS)


def wanted() -> bool:
    """Whether anybody listens to any of them."""
    return any(log.wanted for log in _LOGS.values())


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Have `listener` called with each message of this process, in the thread that exchanges it."""
    global _listeners
    _listeners = (*_listeners, listener)
    try:
        yield
    finally:
        _listeners = tuple(each for each in _listeners if each is not listener)


def repeat(data: object) -> None:
    """Log here what another process has noted: `{time, logger, text}`. Anything else is passed over."""
    if isinstance(data, dict) and isinstance(data.get("time"), float) and (log := _LOGS.get(str(data.get("logger")))):
        log.tell(Entry(data["time"], log.name, _cut(printable(data.get("text"), None))))


def shown(message: object) -> str:
    """A message as one line that any terminal can show, without secrets, of at most some `LIMIT` characters."""
    try:
        text = message if isinstance(message, str) else json.dumps(_without_secrets(message), default=str)
    except (ValueError, TypeError, RecursionError):
        return "(a message that cannot be shown)"
    return _cut(printable(text, None))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, Mapping):  # qemu.qmp has one of its own
        # QMP's object-add: the data of a secret object is the secret.
        hidden = {*SECRETS, "data"} if value.get("qom-type") == "secret" else SECRETS
        return {key: HIDDEN if key in hidden and each else _without_secrets(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    return value


def _cut(text: str) -> str:
    return text if len(text) <= LIMIT else f"{text[:LIMIT]}... ({len(text)} characters)"
