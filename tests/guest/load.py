"""Events from the host, as the background of a test."""

from __future__ import annotations

import random
import threading

from qemu_sdei.errors import LostGuestError, NotDeliveredError
from qemu_sdei.guest.guest import Guest
from tests.guest.guests import until


def at_rest(guest: Guest) -> dict[str, int]:
    """The counts of `status`, once no event is pending and no handler runs.

    An event that is pending is accepted and not yet delivered: counts that are read before it was are uneven.
    """
    status = guest.status()

    def rests() -> bool:
        nonlocal status
        status = guest.status()
        instances = [instance for event in status["events"] for instance in event["instances"]]
        return not any(instance["pending"] or instance["running"] for instance in instances)

    until("no event is pending and no handler runs", rests)
    return {name: int(count) for name, count in status["counts"].items() if isinstance(count, int)}


class EventLoad:
    """Injects events on CPUs of a guest, drawn at random; in a `with`."""

    def __init__(self, guest: Guest, events: tuple[int, ...], cpus: int, pause: float = 0.001) -> None:
        """`pause`: seconds between two injections; without one a guest has no time for anything else."""
        self.queued: dict[tuple[int, int], int] = {(event, cpu): 0 for event in events for cpu in range(cpus)}
        """By event and CPU: accepted, and each of them a delivery of its own."""
        self.merges = dict.fromkeys(self.queued, 0)
        """By event and CPU: accepted, and one with a delivery that was still to come."""
        self.unknown = dict.fromkeys(self.queued, 0)
        """The connection to the backend broke: carried out or not."""
        self.refused: set[str] = set()
        """Why some were not delivered."""
        self.error: Exception | None = None
        self._guest = guest
        self._pause = pause
        self._random = random.Random(repr(events))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def delivered(self) -> int:
        """All that were accepted and had a delivery of their own."""
        return sum(self.queued.values())

    @property
    def merged(self) -> int:
        """All that were one with another."""
        return sum(self.merges.values())

    def __enter__(self) -> EventLoad:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        targets = list(self.queued)
        try:
            with self._guest.client() as client:
                client.connect_timeout = 30
                while not self._stop.wait(self._pause):
                    target = self._random.choice(targets)
                    try:
                        outcome = client.inject(*target).outcome
                    except NotDeliveredError as error:
                        self.refused.add(str(error))
                    except LostGuestError:
                        self.unknown[target] += 1
                    else:
                        self.queued[target] += outcome == "queued"
                        self.merges[target] += outcome == "merged"
        except Exception as error:
            self.error = error
