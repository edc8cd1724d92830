"""What the user of `top` has chosen: a vCPU, an event, what is shown; and what each key does to that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

INJECT: Final = "inject"
PAUSE: Final = "pause"
QUIT: Final = "quit"
SUSPEND: Final = "suspend"

HELP: Final = (
    ("arrows, tab", "choose a vCPU and an event; page up, page down, home, end: vCPUs further away"),
    ("i", "inject the event that is chosen into the vCPU that is chosen, and say what became of it"),
    ("p", "pause the guest, or resume it"),
    ("a", "show all events, or those that are registered or were triggered"),
    ("?", "this help"),
    ("q, Ctrl-C", "leave; the guest goes on (a paused one stays paused)"),
)
_PAGE: Final = 8


@dataclass
class Choice:
    """Where the user is.

    Attributes:
        vcpu: the vCPU that is chosen.
        event: the event that is chosen: its place among those that are shown.
        first_vcpu, first_event: the first ones on the screen.
        everything: all events are shown.
        help: the help is shown.
    """

    vcpu: int = 0
    event: int = 0
    first_vcpu: int = 0
    first_event: int = 0
    everything: bool = False
    help: bool = False

    def key(self, key: str, vcpus: int, events: int) -> str | None:
        """A key was typed, while there are so many vCPUs and events. Returns what is to be done: INJECT, PAUSE, QUIT,
        SUSPEND; None: it is done.
        """
        if self.help and key != "q":
            self.help = False
            return None
        if key in _ACTIONS:
            return _ACTIONS[key]
        if key in _VCPU:
            self.vcpu = _VCPU[key](self.vcpu, vcpus)
        elif key in ("left", "h"):
            self.event -= 1
        elif key in ("right", "l"):
            self.event += 1
        elif key == "tab":
            self.event = (self.event + 1) % max(events, 1)
        elif key == "shift-tab":
            self.event = (self.event - 1) % max(events, 1)
        elif key == "a":
            self.everything = not self.everything
        elif key == "?":
            self.help = True
        self.fit(vcpus, events)
        return None

    def fit(self, vcpus: int, events: int) -> None:
        """Have the choice be one of those that are there."""
        self.vcpu = max(0, min(self.vcpu, vcpus - 1))
        self.event = max(0, min(self.event, events - 1))

    def scroll(self, vcpus: int, vcpu_room: int, events: int, event_room: int) -> None:
        """Have what is chosen be on a screen that has room for so many vCPUs and events."""
        self.fit(vcpus, events)
        self.first_vcpu = first_shown(self.first_vcpu, self.vcpu, vcpus, vcpu_room)
        self.first_event = first_shown(self.first_event, self.event, events, event_room)


_ACTIONS: Final = {"i": INJECT, "p": PAUSE, "q": QUIT, "ctrl-c": QUIT, "ctrl-z": SUSPEND}
_VCPU: Final[dict[str, Callable[[int, int], int]]] = {
    "up": lambda vcpu, vcpus: vcpu - 1,
    "k": lambda vcpu, vcpus: vcpu - 1,
    "down": lambda vcpu, vcpus: vcpu + 1,
    "j": lambda vcpu, vcpus: vcpu + 1,
    "page-up": lambda vcpu, vcpus: vcpu - _PAGE,
    "page-down": lambda vcpu, vcpus: vcpu + _PAGE,
    "home": lambda vcpu, vcpus: 0,
    "end": lambda vcpu, vcpus: vcpus - 1,
}


def first_shown(first: int, chosen: int, total: int, room: int) -> int:
    """The first of `total` on a screen with room for `room` that has `chosen`, moved no more than it must be."""
    room = max(room, 1)
    first = max(0, min(first, total - room))
    return min(max(first, chosen - room + 1), chosen)


def shown_events(status: dict[str, Any], everything: bool) -> list[dict[str, Any]]:
    """The events that are shown: those that are in use, or all of them. None in use: all."""
    events: list[dict[str, Any]] = status["events"]
    used = [event for event in events if any(_used(instance) for instance in event["instances"])]
    return events if everything or not used else used


def _used(instance: dict[str, Any]) -> bool:
    return bool(
        instance["registered"]
        or instance["running"]
        or instance["pending"]
        or instance.get("triggers", {}).get("accepted")
    )
