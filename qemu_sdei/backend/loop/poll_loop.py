"""The loop that waits for frames.

Two ways of waiting. While calls come thick and fast it watches the SEQ words and the monitor does not ring (about a
microsecond a call); after a while without news it says so in the window and sleeps until the doorbell, a client or
the supervisor wakes it. How long "a while" is adapts: it grows when watching pays and shrinks when it does not,
because cores are few and a watcher takes one from the guest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from qemu_sdei.backend.loop.counted_calls import CountedCalls
from qemu_sdei.backend.loop.descriptors import Descriptors
from qemu_sdei.backend.loop.event_log import EventLog
from qemu_sdei.backend.loop.fence import Fence
from qemu_sdei.backend.loop.frame_hooks import FrameHooks
from qemu_sdei.backend.loop.kicks import Kicks
from qemu_sdei.backend.loop.late_calls import LateCalls
from qemu_sdei.backend.loop.served_guest import ServedGuest
from qemu_sdei.monitor.layout import Header

_SPIN_MIN: Final = 400
_SPIN_MAX: Final = 4000
"""Looks at the SEQ words without news before going to sleep; a look takes some 60 ns."""
_SPIN_YIELD: Final = 32
_SPIN_KICK: Final = 500
"""The same while a kick is on its way, with a sched_yield between looks: its frame comes within a few dozen
microseconds, or the CPU is busy in EL3.
"""
_LONG_YIELD_NS: Final = 200_000
"""A yield that takes longer: others want this core, hundreds more would be seconds. The ring wakes a sleeper as well.
"""
_SOCKETS_EVERY: Final = 256
"""Frames after which a busy loop looks at its sockets; after one of a user's service it does so at once."""
_SECOND_LOOK_MS: Final = 2
_LONG_SLEEP_MS: Final = 1000
_LONGEST_SLEEP_MS: Final = 8000
"""Of a guest that makes no call at all: an idle one costs its host nothing."""


class PollLoop:
    """Sees the frames of one guest, and has them answered."""

    def __init__(
        self,
        guest: ServedGuest,
        descriptors: Descriptors,
        kicks: Kicks,
        log: EventLog,
        late: LateCalls,
        hooks: FrameHooks,
        counted: CountedCalls,
        *,
        answers: Callable[[], Callable[[int, int], bool]],
        tick: Callable[[], int],
    ) -> None:
        """`answers` tells what answers the next frames, which returns whether a user's service may have taken long.
        `tick` goes on with what waits for time to pass, and returns after how many milliseconds to call it again.
        """
        self._window = guest.window
        self._seen = guest.seen
        self._descriptors = descriptors
        self._kicks = kicks
        self._log = log
        self._late = late
        self._hooks = hooks
        self._counted = counted
        self._answers = answers
        self._tick = tick
        self._fence = Fence()
        self._spin = _SPIN_MIN

    def run(self) -> None:
        """Returns when the descriptors are stopped."""
        seq, seen, poll_word = self._window.seq, self._seen, self._window.header
        cpus = range(self._window.nr_cpus)
        descriptors, kicked = self._descriptors, self._kicks.on_the_way
        sched_yield, clock = os.sched_yield, time.monotonic_ns
        release, acquire = self._fence.release, self._fence.acquire
        look, late, hooks, answers = self._log.look, self._late, self._hooks, self._answers
        if descriptors.paused:
            descriptors.wait_while_paused()
        descriptors.first = self._answer_posted
        frame = answers()
        quiet = 0
        since_sockets = 0
        poll_word[Header.POLL] = 1
        while not descriptors.stopping:
            if seq != seen:
                for pe in cpus:
                    s = seq[pe]
                    if s != seen[pe]:
                        if frame(pe, s):
                            since_sockets = _SOCKETS_EVERY
                        since_sockets += 1
                if quiet > 64 and self._spin < _SPIN_MAX:
                    self._spin += self._spin >> 2
                quiet = 0
                if since_sockets >= _SOCKETS_EVERY:
                    since_sockets = 0
                    self._counted.tell()
                    self._log.ring.commit()
                    descriptors.serve(0)
                    self._tick()
                    look()
                    late.serve(hooks.frame)
                    frame = answers()
                    poll_word[Header.POLL] = 1
                continue
            quiet += 1
            if quiet < _SPIN_YIELD:
                continue
            if quiet < _SPIN_KICK and 1 in kicked:
                began = clock()
                sched_yield()  # who takes the ring may have been woken on this core
                if clock() - began > _LONG_YIELD_NS:
                    quiet = max(self._spin, _SPIN_KICK)
                continue
            if quiet < self._spin:
                continue
            # Nothing came: stop watching, and look once more, because a frame may have been posted by somebody who
            # still saw us watch.
            poll_word[Header.POLL] = 0
            release()  # the store above is visible before the load below
            acquire()
            if seq != seen:
                poll_word[Header.POLL] = 1
                continue
            if self._spin > _SPIN_MIN:
                self._spin -= self._spin >> 2
            self._sleep()
            look()
            late.serve(hooks.frame)
            frame = answers()
            poll_word[Header.POLL] = 1
            quiet = 0
            since_sockets = 0

    def _answer_posted(self) -> None:
        """Answer what is posted, once: a ring is only drained when its call is answered. What is rung for meanwhile is
        seen by the loop.
        """
        seq, seen = self._window.seq, self._seen
        if seq == seen:
            return
        self._window.header[Header.POLL] = 1
        self._log.look()
        frame = self._answers()
        for pe in range(self._window.nr_cpus):
            s = seq[pe]
            if s != seen[pe]:
                frame(pe, s)

    def _sleep(self) -> None:
        """Wait for a descriptor, or for news that nobody rang for.

        On a host whose locks order less than x86's the fence above may not do; by the time a short sleep is over the
        store has long been seen. A connection that QEMU has not accepted yet carries nothing, and what the guest rings
        meanwhile is lost: so until QEMU is known to have accepted it, sleeps are short. And a guest that writes into
        the window where it must not can have its own rings left out: so no sleep is without end.
        """
        self._counted.tell()
        self._tick()
        self._log.ring.commit()
        limit = longest = _SECOND_LOOK_MS
        while not self._descriptors.serve(self._late.at_most(limit)) and self._window.seq == self._seen:
            if self._late.due:
                return
            self._window.header[Header.POLL] = 0
            again = self._tick()
            told = self._counted.tell()
            self._log.ring.commit()
            if self._hooks.heartbeat_ms:
                limit = min(self._hooks.heartbeat_ms, again)
                self._hooks.ask_for_heartbeat()
                continue
            if told or not self._kicks.is_heard():
                longest = min(2 * longest, _LONG_SLEEP_MS)
            else:
                longest = min(max(2 * longest, _LONG_SLEEP_MS), _LONGEST_SLEEP_MS)
            limit = min(longest, again)
