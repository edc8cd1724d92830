"""Typing at a guest's console: what is typed, by whom, and how much of it the guest has not taken yet."""

from __future__ import annotations

from collections.abc import Callable

from qemu_sdei.guest.guest_part import GuestPart
from qemu_sdei.guest.onlookers import Typist
from qemu_sdei.guest.record import GuestRecord
from qemu_sdei.vm.event_loop import EventLoop


class GuestTyping(GuestPart):
    """The keyboard of a `Guest`."""

    loop: EventLoop

    def __init__(self, record: GuestRecord) -> None:
        super().__init__(record)
        self._written = self._typed = 0
        """Bytes that were given to `write`, and those of them that have reached the supervisor."""

    def write(self, text: str | bytes) -> None:
        """Type `text` at the guest's console; the Enter key is a carriage return. A str is encoded as UTF-8. It does
        not wait until the guest has read it.
        """
        supervisor = self.placement.supervisor
        data = text.encode(errors="surrogateescape") if isinstance(text, str) else text

        def arrive() -> None:
            supervisor.write(data)
            self._typed += len(data)

        if self.loop.soon(arrive):  # else it is closed: so is the console
            self._written += len(data)

    def input_backlog(self) -> int:
        """About how many bytes were typed that the guest has not taken yet."""
        on_the_way = self._written - self._typed  # first: what arrives meanwhile is counted twice, and never missed
        placement = self._record.placement
        return on_the_way + (0 if placement is None else placement.supervisor.backlog)

    def attach(self, sink: Callable[[bytes], None] | None) -> None:
        """Pass the console's raw bytes to `sink` too. It is called in another thread, and must not block. None detaches
        it.
        """
        self._record.onlookers.first(sink)

    def end_input(self, line_ended: bool) -> None:
        """Signal the end of input at the guest's console. Our own shell is told to exit, which powers the guest off;
        any other program gets Ctrl-D. Ctrl-D is lost if the program changes the mode of its terminal at that moment, as
        a shell does between two lines.

        `line_ended`: False: the last line has no line end yet; it is ended first.
        """
        line = "" if line_ended else "\r"
        self.write(line + ("exit\r" if self._record.plan.own_initramfs else "\x04"))

    def type_as(self, token: str, who: str) -> str | None:
        """Reserve the guest's console for one typist.

        Args:
            token: identifies the caller; the same token gets the console again.
            who: name of the caller, which others are told; "": reserve nothing, only ask.

        Returns:
            None: the console is the caller's (or free, with `who` ""). Else the name of the one who types there.
        """
        if not who:
            typist = self._record.seat.typist
            return None if typist is None or typist.token == token else typist.who
        other = self._record.seat.take(Typist(token, who), force=False)
        return None if other is None else other.who
