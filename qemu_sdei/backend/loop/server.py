"""What serves a guest: owns all that the loop needs, pauses and resumes it, and takes what comes from outside.

How it waits for frames is in `poll_loop.py`, how it answers a call in `call_frames.py`. One thread: nothing here needs
a lock, and a trigger from a client is just another input between two frames.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.loop import recovery, status_report
from qemu_sdei.backend.loop.call_frames import CallFrames
from qemu_sdei.backend.loop.counted_calls import CountedCalls
from qemu_sdei.backend.loop.counter_clock import CounterClock
from qemu_sdei.backend.loop.descriptors import Descriptors
from qemu_sdei.backend.loop.error_sources import ErrorSources
from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.backend.loop.frame_checks import FrameChecks
from qemu_sdei.backend.loop.frame_hooks import FrameHooks
from qemu_sdei.backend.loop.host_errors import HostErrors
from qemu_sdei.backend.loop.hypervisor_frames import AnswerFrame, HypervisorFrames
from qemu_sdei.backend.loop.journal import Journal
from qemu_sdei.backend.loop.journal_space import JournalSpace
from qemu_sdei.backend.loop.kicks import Kicks
from qemu_sdei.backend.loop.late_calls import LateCalls
from qemu_sdei.backend.loop.looks import Looks
from qemu_sdei.backend.loop.notifier import Notifier
from qemu_sdei.backend.loop.pending_injections import PendingInjections
from qemu_sdei.backend.loop.poll_loop import PollLoop
from qemu_sdei.backend.loop.rare_frames import RareFrames
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.backend.loop.stolen_time import StolenTime
from qemu_sdei.errors import BusyError, ProtocolError, SdeiError
from qemu_sdei.hypervisor.vectors import FIRST_IMMEDIATE, LOWER_SYNC
from qemu_sdei.monitor.doorbell import Doorbell
from qemu_sdei.monitor.layout import COUNTER_SINCE, Header, Save
from qemu_sdei.monitor.window import Window
from qemu_sdei.profiles.firmware_profile import FirmwareProfile
from qemu_sdei.sdei.dispatcher import Trigger
from qemu_sdei.sdei.events import ANY_PE
from qemu_sdei.services.pv_time import PvTime
from qemu_sdei.trace.ring import Ring
from qemu_sdei.trace.trace_file import Recorder

if TYPE_CHECKING:
    from qemu_sdei.backend.loop.device_frames import DeviceFrames


class Server:
    """Serves one guest until QEMU goes away or somebody stops its descriptors.

    Attributes:
        guest: what is served.
        window, firmware, journal: those of `guest`.
        frame: answers one frame, of a PE and with a number; returns whether a user's service may have taken long.
        log: what happens in it.
        descriptors: what wakes the loop beside the doorbell; `descriptors.stop` ends it.
        kicks: how CPUs are interrupted.
        hooks: what is wanted of frames beside an answer.
        injections: whose clients wait for the outcome.
        recorder: what writes the trace file of `run --trace`, if there is one.
        looks: where vCPUs are, for whoever asks.
        errors: its error sources.
        host_errors: pages of its RAM that go bad at the host.
        notifier: aborts and interrupts, for whoever makes them.
        clock: how the guest's counter lies on the host's time.
        stolen: how long the host kept its vCPUs waiting.
    """

    def __init__(
        self,
        window: Window,
        doorbell: Doorbell,
        firmware: Firmware,
        journal: Journal,
        ring: Ring,
        *,
        hypervisor: HypervisorFrames | None = None,
    ) -> None:
        """`hypervisor`: what each frame goes through first, of a guest that runs as under a hypervisor."""
        self.guest = guest = ServedGuest(window, firmware, journal)
        self.window = window
        self.firmware = firmware
        self.journal = journal
        self.log = EventLog(ring, window.nr_cpus)
        self.descriptors = Descriptors()
        self.kicks = Kicks(window, doorbell, firmware)
        self.late = LateCalls(guest, ring.clock)
        self.hooks = FrameHooks(self, guest, self.kicks, self.log, self.late)
        self.injections = PendingInjections(self.log)
        self.looks = Looks(guest, self.kicks, ring.clock)
        self.notifier = Notifier(self, guest, self.kicks, self.log, self.looks.sleeps)
        self.errors = ErrorSources(guest, self.log, self.trigger, lambda: self.hooks.arriving, self.notifier)
        self.notifier.on_lost = self.errors.not_told
        self.host_errors = HostErrors(window, self.errors, self.log, lambda: self.paused, journal.bad_pages)
        checks = FrameChecks(guest, self.log)
        counted = CountedCalls(ring, guest.ready)
        self._rare = RareFrames(guest, self.log, checks, self.kicks, self.looks, self._machine_resets)
        self._calls = CallFrames(guest, self.log, checks, self.kicks, self._rare, counted, JournalSpace(self, guest))
        self.frame: AnswerFrame = self._calls.frame
        self.clock = CounterClock()
        self.stolen = StolenTime(
            window,
            next((service for service in firmware.registry if isinstance(service, PvTime)), None),
            ring.clock,
            lambda: self.descriptors.paused or firmware.boot.booting,
        )
        self.recorder: Recorder | None = None
        self._answer: AnswerFrame = self.frame
        self._answer_hooked: AnswerFrame = self.hooks.frame
        if hypervisor is not None:
            self._answer = hypervisor.before(self.frame)
            self._answer_hooked = hypervisor.before_unless(lambda: self.descriptors.paused, self.hooks.frame)
            window.save |= Save.EL2
            guest.ready.come_by_el2(FIRST_IMMEDIATE + LOWER_SYNC)
        window.save |= Save.COUNTER
        self._doorbell = doorbell
        self._polling = PollLoop(
            guest,
            self.descriptors,
            self.kicks,
            self.log,
            self.late,
            self.hooks,
            counted,
            answers=self.answer_function,
            tick=self._tick,
        )
        self.descriptors.watch(doorbell.fileno(), self.rung)

    def emulate(self, device: DeviceFrames) -> None:
        """Have `device` answer the guest's accesses to it."""
        self._rare.device = device

    @property
    def reports(self) -> int:
        """How often this backend has written into RAM of a guest that runs: hardware errors, and what it reads of a
        device.
        """
        device = self._rare.device
        return self.errors.reports + (0 if device is None else device.written)

    def writes_ram(self, frame: memoryview) -> bool:
        """See `FrameLoop`."""
        return self._rare.device is not None and self._rare.device.writes_ram(frame)

    def rung(self, events: int) -> None:
        """The doorbell's descriptor is ready: the guest has rung, or QEMU has gone."""
        self.kicks.heard = True
        if not self._doorbell.drain():
            self.descriptors.unwatch(self._doorbell.fileno())
            self.descriptors.stop()

    def begin(self) -> None:
        """Hear from the firmware what happens, from now on: not in a recovery, where it has happened before."""
        self.firmware.observer.note = self.log.note
        self.firmware.observer.record = self._calls.record_outcome
        self.firmware.observer.wall = self.clock.wall
        ready = self.guest.ready
        self.firmware.dispatcher.on_transition = self.log.transition_hook(ready.events, ready.changes)
        self.firmware.dispatcher.on_waiting = self._waits
        self.firmware.notices.on_came = self.notifier.came
        self._tell_profile()
        self._look_at_monitor()

    def _look_at_monitor(self) -> None:
        """One that tells no counter leaves the host's clock to say when a call came. With others the first calls are
        stamped, so that it is soon known how the counter lies on that clock, and then few of them.
        """
        self.clock.forget()
        self._calls.stamp(sparsely=self.firmware.machine.monitor >= COUNTER_SINCE)

    def _machine_resets(self) -> None:
        self.guest.ready.begin()
        self._look_at_monitor()  # its counter may be another one now
        self.stolen.reset()

    def _waits(self, event: int, pe: int) -> None:
        """An event became pending that no PE takes now. `pe`: of a private event, else ANY_PE."""
        where = None if pe == ANY_PE else pe
        found = self.firmware.dispatcher.what_is_in_the_way(event, where)
        if found is not None:
            self.log.note("undelivered", where, event=event, reason=found.reason, why=found.why)

    def run(self) -> None:
        """Serve. Returns when QEMU closed the doorbell or after `descriptors.stop`."""
        self.begin()
        if not self.descriptors.paused:
            self.guest.ready.begin()
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000)  # the hot path keeps nothing; a collection there would be a hiccup of milliseconds
        self._polling.run()

    def _tick(self) -> int:
        """Go on with what waits for time to pass. Returns after how many milliseconds this is to be called again."""
        self.errors.untold.tick()
        return min(self.notifier.tick(), self.host_errors.tick(), self.stolen.tick())

    # ---- paused ------------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether no frame is answered; what is posted waits, and triggers are not asked for."""
        return self.descriptors.paused

    def pause(self) -> None:
        """Answer no frame until `resume`."""
        self.log.ring.commit()
        if self.recorder is not None and not self.descriptors.paused:
            self.recorder.copy()  # before another backend goes on with the same file
        self.descriptors.paused = True
        self.guest.ready.want(False)
        self.window.header[Header.POLL] = 0

    def resume(self) -> None:
        """Answer frames again."""
        self.clock.forget()
        self.descriptors.paused = False

    def await_guest(self) -> None:
        """The guest has not come yet: pause, and leave its RAM alone."""
        self.descriptors.paused = True

    def drain(self) -> None:
        """Answer what is posted. For a guest whose vCPUs are paused, so that nothing new comes."""
        for pe in range(self.window.nr_cpus):
            s = self.window.seq[pe]
            if s != self.guest.seen[pe]:
                self._answer(pe, s)

    def answer(self, pe: int, s: int) -> bool:
        """Answer frame `s` of a PE; returns as `frame`."""
        return self.frame(pe, s)

    def answer_as_wanted(self, pe: int, s: int) -> bool:
        """As `answer`, with all that is wanted of frames (`hooks`)."""
        return self.answer_function()(pe, s)

    def answer_function(self) -> Callable[[int, int], bool]:
        """What answers the next frames. Where somebody else is to see them too, the monitor answers none."""
        hooked = self.descriptors.paused or self.hooks.wanted
        self.guest.ready.want(not (hooked or self._calls.each or self.firmware.misbehaviour.active))
        return self._answer_hooked if hooked else self._answer

    def take_over(self, answered: list[int]) -> None:
        """Serve a guest whose state and window were just filled in; `answered` as of the backend before this."""
        self.log.begun("incoming")
        self.guest.answered[:] = answered
        self.guest.ready.begin()
        self._calls.forget()  # they count in lists that were replaced
        self.late.forget()
        self._tell_profile()
        self._look_at_monitor()
        self.stolen.take_over()
        for pe, s in enumerate(answered):
            self.guest.seen[pe] = s
        self.kicks.forget()
        self.looks.forget()
        self.checkpoint()
        self.kicks.repeat()

    # ---- state

    def make_room(self) -> None:
        """See to it that the journal takes another record."""
        self._calls.make_room()

    def record_each(self, wanted: bool) -> None:
        """Have each call recorded, also those that are only counted otherwise; or somebody wants that no more."""
        self._calls.record_each(wanted)

    def trigger(self, event: int, pe: int | None) -> Any:
        """Inject an event. Raises what `Dispatcher.trigger` raises."""
        self._calls.make_room()
        self.journal.trigger(event, pe)
        try:
            found = self.firmware.trigger(event, pe)
        except SdeiError as error:
            self.log.note("trigger", pe, event=event, by="host", outcome="refused", why=str(error))
            raise
        else:
            self.log.triggered(event, pe, merged=found is Trigger.MERGED)
            return found
        finally:
            if self.firmware.kicks:
                self.kicks.send()
            self.hooks.changed()
            self.log.ring.commit()

    def replace_sdei(self, sdei: dict[str, Any]) -> None:
        """Have another SDEI state from now on. Raises `ProtocolError`: it cannot be, and nothing was changed."""
        if self.firmware.exchange.busy:
            raise ProtocolError("a service waits for its micro-operations; try again")
        self.firmware.restore(self.firmware.snapshot() | {"sdei": sdei})
        self._calls.forget()
        self.log.times.forget()
        self.errors.untold.look_again()
        self.checkpoint()
        self.kicks.send()
        self.hooks.changed()

    def select_services(self, values: dict[int, int]) -> None:
        """Write bitmap registers of services, by id. Raises what `Firmware.select` raises."""
        if self.firmware.select(values):
            self._calls.forget()
            self.checkpoint()

    def misbehave(self, profile: FirmwareProfile) -> None:
        """Have the firmware do what the rules of a profile say, from now on.

        Raises:
            UsageError: a rule cannot be in this guest.
            BusyError: a service waits for its micro-operations; try again.
        """
        if self.firmware.exchange.busy:
            raise BusyError("a service waits for its micro-operations; try again")
        self.firmware.misbehaviour.use(profile)
        self._calls.forget()
        self.checkpoint()
        self._tell_profile(always=True)

    def _tell_profile(self, *, always: bool = False) -> None:
        """A profile is never in use without a word of it."""
        misbehaviour = self.firmware.misbehaviour
        self.late.wanted = misbehaviour.has_late
        self._calls.look_for_callers(misbehaviour.asks_callers)
        if always or misbehaviour.active:
            profile = misbehaviour.profile
            self.log.note("firmware", None, profile=profile.name, rules=len(profile.rules), summary=profile.summary)

    def checkpoint(self, answers: dict[int, memoryview] | None = None) -> None:
        """See `recovery.checkpoint`."""
        recovery.checkpoint(self.guest, answers)

    def recover(self) -> bool:
        """See `recovery.recover`; then every CPU is kicked that may wait for a kick."""
        found = recovery.recover(self.guest)
        if found:
            self.kicks.repeat()
            self.errors.take_up()
            self.stolen.take_up()
        self.host_errors.take_up()
        return found

    def status(self) -> dict[str, Any]:
        """See `status_report.status`."""
        return status_report.status(self.guest, self.log) | {"sources": self.errors.report()}
