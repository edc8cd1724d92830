"""Injections whose clients want to know when the handler has completed (`inject` with `wait`).

Each has a ticket, and is in the state document: when the guest moves, its client is told the ticket, and asks for it
where the guest is then. So neither the trigger nor the answer to it is lost, or is there twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from qemu_sdei import jsonline
from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.errors import ProtocolError, UsageError
from qemu_sdei.sdei.transitions import UNREGISTERED

MAX_WAITING: Final = 1024
"""Injections that one client can wait for at a time: each costs a look whenever a handler completes."""
MAX: Final = 4096
"""Tickets that a guest brings along at most, and answers that are kept for those who have not come for them."""
_KEYS: Final = frozenset(("ticket", "event", "pe", "waited_ns", "entry_ns"))
MAX_TICKET: Final = 32
MAX_NS: Final = 1 << 62
_ENDS: Final = {"RESET": "the machine was reset", "PE_RESET": "its CPU went off"}
"""Why an event is no longer registered, by the cause of its transition."""

Answer = dict[str, Any]
"""The part of a message that says how it went: `ok` with `result` or `error`."""


class Waiter:
    """One injection. `owner` is the client's connection; None: it has not come for it yet."""

    __slots__ = ("answer", "entry", "event", "owner", "pe", "reply", "start", "ticket")

    def __init__(self, ticket: str, event: int, pe: int | None, start: int) -> None:
        self.ticket, self.event, self.pe, self.start = ticket, event, pe, start
        self.entry: int | None = None
        self.owner: object = None
        self.reply: Callable[[Answer], None] | None = None
        self.answer: Answer | None = None


class PendingInjections:
    """Those of one guest."""

    def __init__(self, log: EventLog) -> None:
        """`log` has the clock, and tells what happens."""
        self._log = log
        self._waiters: list[Waiter] = []

    def add(self, event: int, pe: int | None, owner: object, reply: Callable[[Answer], None]) -> Waiter:
        """Wait for an event that is about to be triggered; `pe` None: on whichever PE."""
        waiter = Waiter(secrets.token_hex(8), event, pe, self._log.clock())
        waiter.owner, waiter.reply = owner, reply
        self._waiters.append(waiter)
        self._listen()
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """Nobody wants to know any more."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        self._listen()

    def held_by(self, owner: object) -> int:
        """How many a client waits for."""
        return sum(waiter.owner is owner for waiter in self._waiters)

    def check_room(self, owner: object) -> None:
        """Whether a client can wait for one more. Raises `UsageError`."""
        if self.held_by(owner) >= MAX_WAITING:
            raise UsageError(f"this client waits for {MAX_WAITING} injections already")

    def drop(self, owner: object) -> None:
        """A client has hung up."""
        self._waiters = [waiter for waiter in self._waiters if waiter.owner is not owner]
        self._listen()

    def claim(self, ticket: str, owner: object, reply: Callable[[Answer], None]) -> bool:
        """Have the answer to what a client began to wait for where the guest came from. False: no such ticket."""
        for waiter in self._waiters:
            if waiter.ticket == ticket and waiter.owner is None:
                if waiter.answer is not None:
                    self.forget(waiter)
                    reply(waiter.answer)
                else:
                    waiter.owner, waiter.reply = owner, reply
                return True
        return False

    def abandon(self, why: str) -> None:
        """What all wait for will not happen."""
        for waiter in list(self._waiters):
            self._end(waiter, jsonline.refusal("state", f"event {waiter.event:#x}: {why}"))

    def leave(self) -> list[Waiter]:
        """The guest has moved, and these with it."""
        left, self._waiters = self._waiters, []
        self._listen()
        return left

    def go_on(self, waiters: list[Waiter]) -> None:
        """Have those of `leave` back."""
        self._waiters += waiters
        self._listen()

    # State

    def snapshot(self) -> list[dict[str, Any]]:
        """For the state document. Times are those of the guest's life here: how long it is paused is not in them."""
        now = self._log.clock()
        return [
            {
                "ticket": waiter.ticket,
                "event": waiter.event,
                "pe": waiter.pe,
                "waited_ns": now - waiter.start,
                "entry_ns": None if waiter.entry is None else waiter.entry - waiter.start,
            }
            for waiter in self._waiters
            if waiter.answer is None
        ][:MAX]

    def restore(self, state: object, nr_cpus: int) -> None:
        """Take over what `check` has checked."""
        check(state, nr_cpus)
        assert isinstance(state, list)
        now = self._log.clock()
        self._waiters = []
        for entry in state:
            waiter = Waiter(entry["ticket"], entry["event"], entry["pe"], now - entry["waited_ns"])
            if entry["entry_ns"] is not None:
                waiter.entry = waiter.start + entry["entry_ns"]
            self._waiters.append(waiter)
        self._listen()

    def disappoint(self, pending: set[tuple[int, int]], running: set[tuple[int, int]]) -> None:
        """Tell those who wait for what will not come: it is neither pending, of them (event, PE or -1 for a shared
        one), nor does its handler run, (event, PE).
        """
        for waiter in list(self._waiters):
            if waiter.entry is not None:
                comes = any(waiter.event == event and waiter.pe in (None, pe) for event, pe in running)
            else:
                comes = any((waiter.event, pe) in pending for pe in (-1, waiter.pe) if pe is not None)
            if not comes and waiter.answer is None:
                self._end(waiter, jsonline.refusal("state", f"event {waiter.event:#x}: it is not pending any more"))

    # What happens in the guest

    def _listen(self) -> None:
        """Be told of what happens only while somebody wants to know: it costs on the hot path."""
        if any(waiter.answer is None for waiter in self._waiters):
            self._log.listen(self._happened)
        else:
            self._log.unlisten(self._happened)

    def _happened(self, record: dict[str, Any]) -> None:
        if "event" not in record:
            return
        event, pe, kind, now = record["event"], record["pe"], record["type"], record["time_ns"]
        for waiter in list(self._waiters):
            if waiter.event != event or waiter.answer is not None or waiter.pe not in (None, pe):
                continue
            if kind == "deliver":
                if waiter.entry is None:
                    waiter.entry, waiter.pe = now, pe
            elif kind == "complete" and waiter.entry is not None:
                result = {
                    "outcome": "completed",
                    "reason": None,
                    "vcpu": pe,
                    "entry_ns": waiter.entry - waiter.start,
                    "complete_ns": now - waiter.start,
                }
                self._end(waiter, jsonline.success(result))
            elif kind == "transition" and record["to"] == UNREGISTERED:
                # By whatever cause: its handler will never start or complete.
                what = _ENDS.get(record["cause"], "the guest unregistered it")
                when = "before its handler started" if waiter.entry is None else "while its handler ran"
                self._end(waiter, jsonline.refusal("state", f"event {event:#x}: {what} {when}"))

    def _end(self, waiter: Waiter, answer: Answer) -> None:
        if not answer["ok"]:
            why = answer["error"]["message"]
            self._log.note("injection", waiter.pe, event=waiter.event, outcome="failed", ticket=waiter.ticket, why=why)
        if waiter.reply is not None:
            self.forget(waiter)
            waiter.reply(answer)
            return
        waiter.answer = answer  # until somebody comes for it
        kept = [other for other in self._waiters if other.answer is not None]
        if len(kept) > MAX:
            self._waiters.remove(kept[0])
        self._listen()


def check(state: object, nr_cpus: int) -> None:
    """Whether this can be part of a state document. Raises `ProtocolError`."""
    if not isinstance(state, list) or len(state) > MAX:
        raise ProtocolError(f"state document: waiting: must be a list of at most {MAX}")
    for entry in state:
        if not isinstance(entry, dict) or entry.keys() != _KEYS:
            raise ProtocolError(f"state document: waiting: must be objects with {', '.join(sorted(_KEYS))}")
        ticket = entry["ticket"]
        if not isinstance(ticket, str) or not 0 < len(ticket) <= MAX_TICKET:
            raise ProtocolError(f"state document: waiting: a ticket has 1 to {MAX_TICKET} characters")
        _number(entry["event"], 0xFFFF_FFFF, "event")
        _number(entry["waited_ns"], MAX_NS, "waited_ns")
        if entry["pe"] is not None:
            _number(entry["pe"], nr_cpus - 1, "pe")
        if entry["entry_ns"] is not None:
            _number(entry["entry_ns"], entry["waited_ns"], "entry_ns")


def _number(value: object, high: int, what: str) -> None:
    if type(value) is not int or not 0 <= value <= high:
        raise ProtocolError(f"state document: waiting: {what} must be a number from 0 to {high:#x}")
