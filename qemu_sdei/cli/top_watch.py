"""What `top` knows: a thread that looks at the guest again and again, and one that does what the user asks for."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

from qemu_sdei import rundir
from qemu_sdei.cli.event_lines import Line, Lines
from qemu_sdei.cli.record_feed import RecordFeed
from qemu_sdei.cli.top_layout import View
from qemu_sdei.durations import duration
from qemu_sdei.errors import LostGuestError, NotDeliveredError, SdeiError
from qemu_sdei.guest import machine_control
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.overview import Overview, name_addresses, rates
from qemu_sdei.symbols.symbolizer import Symbolizer
from qemu_sdei.trace.latency import STAGES, Distributions, LifeBook

_KEPT: Final = 500
_ANSWER: Final = 5.0
"""Seconds that the backend may take for an answer; then it is said that it does not, and asked again."""
_WAIT: Final = 2.0
"""Seconds that an injection is waited for."""
_BACK: Final = 2.0
_SHOWN: Final = ("complete", *(name for name in STAGES if name != "complete"))
"""Stages of an event in the order in which they are shown: the first one gets the picture."""
_MOST: Final = 8
"""Things that the user asks for that may wait: a key held down is no reason to do it a hundred times."""


class Watch:
    """Looks at one guest.

    Attributes:
        ended: why there is nothing more to look at; "": the guest is there.
        failed: that is an error.
    """

    def __init__(self, guest: rundir.Running, interval: float, symbols: Callable[[], Symbolizer | None]) -> None:
        """`interval`: seconds between two looks. `symbols` loads names for addresses, which takes its time; it is
        called once, by `load_symbols` or behind the first look.
        """
        self.ended = ""
        self.failed = False
        self._interval = interval
        self._load = symbols
        self._loaded = False
        self._symbols: Symbolizer | None = None
        self._early: list[dict[str, Any]] = []
        """Records that came before the symbols."""
        self._name = guest.name
        self._overview = Overview(guest, timeout=_ANSWER, connect_timeout=_BACK)
        self._feed = RecordFeed(self._overview.client)
        self._names: dict[int, str] = {}
        self._lines = Lines(self._names, self._named)
        self._log: deque[Line] = deque(maxlen=_KEPT)
        self._moves = 0
        self._lives = LifeBook()
        self.latency = Distributions()
        """How long events took, as far as the guest's trace ring tells: from before the first look on."""
        self._before: dict[str, Any] = {}
        self._view: View | None = None
        self._trouble = ""
        self._message = ""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._changed: Callable[[], None] = lambda: None
        self._asked: queue.Queue[Callable[[], str]] = queue.Queue(_MOST)
        self._threads: list[threading.Thread] = []

    def _named(self, pc: int) -> str:
        return f"{pc:#x}" if self._symbols is None else self._symbols.name(pc)

    def load_symbols(self) -> None:
        """Load them now. Raises `UsageError`: they are none."""
        if not self._loaded:
            self._loaded = True
            self._symbols = self._load()
            if self._symbols is not None:
                for record in self._early:
                    self._symbols.learn(record)
            self._early.clear()

    def look(self) -> View:
        """Look once, now. Raises `SdeiError`."""
        status = self._overview.look()
        self._names.update({event["event"]: str(event["name"]) for event in status["events"]})
        records = self._feed.poll()
        for record in records:
            if self._symbols is not None:
                self._symbols.learn(record)
        if self._feed.moves != self._moves:  # what has begun elsewhere does not end here
            self._moves, self._lives = self._feed.moves, LifeBook(self._feed.meta)
        for record in records:
            for life in self._lives.feed(record):
                self.latency.add(life)
        if not self._loaded:
            self._early += records
        if self._symbols is not None:
            name_addresses(status, self._symbols.name)
        self._log.extend(line for record in records if (line := self._lines.line(record)) is not None)
        per_second = rates(self._before, status) if self._before else None
        self._before = status
        self._name = self._overview.directory.name
        # Copies: the next look goes on counting while these are drawn.
        latency = [
            (STAGES[name][0], deepcopy(found), self.latency.errors[name].percentile(0.5))
            for name in _SHOWN
            if (found := self.latency.stages.get(name))
        ]
        view = View(status, per_second, list(self._log), latency, time.strftime("%H:%M:%S"))
        with self._lock:
            self._view = view
            self._trouble = ""
        return view

    def view(self) -> View:
        """What is known now. There must have been a look."""
        with self._lock:
            assert self._view is not None
            view = self._view
            return View(view.status, view.rates, view.log, view.latency, view.clock, self._message, self._trouble)

    def start(self, changed: Callable[[], None]) -> None:
        """Look again and again; `changed` is called, in another thread, when there is something new to show."""
        self._changed = changed
        for work in (self._looking, self._acting):
            thread = threading.Thread(target=work, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End it. What is on its way to the guest is done there all the same."""
        self._stop.set()
        with contextlib.suppress(queue.Full):
            self._asked.put_nowait(lambda: "")
        for thread in self._threads:
            thread.join(0.2)  # one that waits for an answer ends with this process
        if not any(thread.is_alive() for thread in self._threads):
            self._feed.close()
            self._overview.client.close()

    def _looking(self) -> None:
        while not self._stop.wait(self._interval) and not self.ended:
            try:
                self.load_symbols()
                self.look()
            except NotDeliveredError as error:  # it has moved to another host
                self.ended = str(error).partition(";")[0]
            except LostGuestError as error:
                if self._overview.ended:
                    self.ended = f"guest {self._name!r} has ended"
                elif rundir.deserted(self._overview.directory):
                    self.ended, self.failed = str(error), True
                self._say_trouble(str(error))
            except SdeiError as error:
                self._say_trouble(str(error))
            except Exception as error:
                # An answer of another form: of a program of another version.
                self.ended, self.failed = f"the backend's status is not of the protocol's form ({error!r})", True
            self._changed()

    def _say_trouble(self, text: str) -> None:
        with self._lock:
            self._trouble = text

    # ---- what the user asks for

    def say(self, text: str) -> None:
        """Have that said at the bottom of the screen."""
        with self._lock:
            self._message = text

    def inject(self, event: int, vcpu: int) -> None:
        """Inject an event, and say what became of it."""
        paused = self.view().status["host"]["vcpus"] == machine_control.PAUSED

        def act() -> str:
            what = f"event {event:#x} on vCPU {vcpu}"
            with ControlClient(
                self._overview.client.path, identity=self._overview.client.identity, connect_timeout=_BACK
            ) as client:
                done = client.inject(event, vcpu, wait=not paused, timeout=_WAIT)
            if paused:
                return f"{what}: {done.outcome}; {done.reason or 'the guest is paused'}"
            entry = "" if done.entry_ns is None else f"handler entered after {duration(done.entry_ns)}, "
            after = "" if done.complete_ns is None else f" after {duration(done.complete_ns)}"
            return f"{what}: {entry}{done.outcome}{after}"

        self._ask(f"injecting event {event:#x} into vCPU {vcpu}", act)

    def pause(self) -> None:
        """Pause the guest, or resume it if it is paused."""

        def act() -> str:
            owner, identity = self._overview.directory / rundir.OWNER, self._overview.client.identity
            paused = machine_control.run_state(owner, identity) == machine_control.PAUSED
            state = (machine_control.resume if paused else machine_control.pause)(owner, identity)
            return f"the guest is {state} now"

        self._ask("pausing, or resuming", act)

    def _ask(self, doing: str, act: Callable[[], str]) -> None:
        try:
            self._asked.put_nowait(act)
            self.say(f"{doing} ...")
        except queue.Full:
            self.say("what was asked for before is not done yet")

    def _acting(self) -> None:
        while not self._stop.is_set():
            act = self._asked.get()
            if self._stop.is_set():
                return
            try:
                self.say(act())
            except SdeiError as error:
                self.say(str(error).partition("\n")[0])
            except OSError as error:
                self.say(f"not done: {error.strerror or error}")
            self._changed()
