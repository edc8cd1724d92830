"""A page of the guest's RAM that has gone bad at the host becomes an error of the guest's: a memory section, reported
by one of its error sources.

Told of by the host's kernel (`memory_signals.py`) or by whoever knows, by the control socket. What is told by a signal
is not told again, so it waits here until its source is free, and stands in the journal meanwhile, for the backend that
comes after a `kill -9`; who asks by the socket is refused, and asks again. A backend that is killed between telling the
guest and writing that down has the next one tell it twice: Linux says of such a page that it is poisoned already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from qemu_sdei.backend.loop.event_log import EventLog, complain
from qemu_sdei.backend.loop.notifications import Outcome, Then
from qemu_sdei.boot.area import ErrorSource
from qemu_sdei.errors import NotDeliveredError, ProtocolError, SdeiError, UsageError
from qemu_sdei.monitor.window import Window
from qemu_sdei.ras.source import Notify

PAGE: Final = 4096
MAX_PAGES: Final = 1024
"""Pages that one signal may tell of: a huge page of 2 MiB has 512."""
MAX_WAITING: Final = 448
"""Pages, or runs of them, that wait for a source to become free: as many as the journal has words for."""
_COUNT_SHIFT: Final = 1
_TOUCHED: Final = 1
LIMIT_NS: Final = 60 * 10**9
"""How long one waits."""
AGAIN_MS: Final = 50
FOREVER_MS: Final = 1 << 30
_ORDER: Final = (Notify.SDEI, Notify.INTERRUPT, Notify.EXTERNAL, Notify.POLLED, Notify.SEA)
"""By which notification a page that nobody has touched is reported first; one that was: by an abort first."""


class Sources(Protocol):
    """What is asked of the guest's error sources."""

    placed: tuple[ErrorSource, ...]

    def refresh(self, then: Callable[[], object]) -> None:
        """Have it found out which interrupts would reach the guest, then call `then`, now or later."""

    def find(self, name: str) -> ErrorSource:
        """The source of this name. Raises `UsageError`."""

    def check(self, placed: ErrorSource, block: bytes, pe: int | None, *, force: bool) -> None:
        """Whether an error can be reported there. Raises `NotDeliveredError`, `UsageError`."""

    def target(self, placed: ErrorSource, pe: int | None) -> int | None:
        """The vCPU whose event is to be triggered."""

    def tell(self, placed: ErrorSource, block: bytes, pe: int | None, *, then: Then | None = None) -> int | None:
        """Write an error and tell the guest. Returns the vCPU that is told. `then`: called with what became of it."""


@dataclass(frozen=True, slots=True)
class Reported:
    """How a bad page was reported: by which source, to which vCPU (None: no certain one), `page` is its address."""

    page: int
    source: str
    vcpu: int | None


@dataclass(slots=True)
class _Bad:
    """Pages that wait, one behind the other."""

    page: int
    """The first."""
    count: int
    touched: bool
    since_ns: int
    place: int
    """Which word of the journal's they stand in."""
    told: bool = False
    """A vCPU is to take an abort or an interrupt for it, and has not yet."""

    @property
    def word(self) -> int:
        """As it stands in the journal: the page, and what its lowest 12 bits leave room for."""
        return self.page | (self.count - 1) << _COUNT_SHIFT | (_TOUCHED if self.touched else 0)


class HostErrors:
    """Those of one guest.

    Attributes:
        usable: guest physical addresses that are the guest's: RAM without what the firmware has there.
    """

    def __init__(
        self, window: Window, sources: Sources, log: EventLog, paused: Callable[[], bool], kept: memoryview
    ) -> None:
        """`paused`: whether the guest's RAM must be left alone, because the guest is being handed over. `kept`: words
        that outlive the backend (`Journal.bad_pages`), MAX_WAITING of them.
        """
        self.usable = range(window.ram_base, window.base)
        self._window = window
        self._sources = sources
        self._log = log
        self._paused = paused
        self._kept = kept
        self._waiting: list[_Bad] = []

    def report(self, address: int, *, source: str | None = None, vcpu: int | None = None) -> Reported:
        """Report a page as bad that nobody has touched yet.

        Args:
            address: guest physical.
            source: name of the error source; None: the first that is ready, SDEI's before others.
            vcpu: which one is told; None: any.

        Raises:
            UsageError: that is no RAM of the guest's, or there is no such source or vCPU.
            NotDeliveredError: no source can report it now; the message says why. Nothing was written.
        """
        page = self._page(address)
        placed = None if source is None else self._sources.find(source)
        return self._tell(page, placed, vcpu, touched=False)[0]

    def guest_address(self, host_address: int) -> int:
        """Guest physical address of a virtual one of this process. Raises `UsageError`: that is no guest RAM."""
        from qemu_sdei.backend.loop.memory_signals import address_of

        offset = host_address - address_of(self._window.ram)
        if not 0 <= offset < self._window.ram_size:
            raise UsageError(f"host address {host_address:#x} is not in the backend's mapping of guest RAM")
        return self._window.ram_base + offset

    def signalled(self, host_address: int, size: int, touched: bool) -> None:
        """The host's kernel has told of so many bytes from this virtual address on."""
        try:
            first = self.guest_address(host_address)
        except UsageError:
            self._say(f"memory of the backend's own, at {host_address:#x}, has gone bad at the host", None)
            return
        run = 0  # pages in front of this one that are the guest's
        end = min(first + size, first + MAX_PAGES * PAGE)
        for page in range(first - first % PAGE, end, PAGE):
            try:
                self._page(page)
                run += 1
            except UsageError as error:
                self._await(page - run * PAGE, run, touched)
                run = 0
                self._say(str(error), page)
        self._await(end + -end % PAGE - run * PAGE, run, touched)
        self._sources.refresh(self.tick)

    def _await(self, page: int, count: int, touched: bool) -> None:
        """Have so many pages from this one on wait."""
        if not count:
            return
        place = next((place for place, word in enumerate(self._kept) if not word), None)
        if place is None:
            self._say(f"page {page:#x} of guest RAM has gone bad, and {len(self._kept)} wait to be reported", page)
            return
        bad = _Bad(page, count, touched, self._log.clock(), place)
        self._kept[place] = bad.word
        self._waiting.append(bad)

    def take_up(self) -> None:
        """Have what a backend before this one has not reported wait here, unless it does already."""
        known = {bad.place for bad in self._waiting}
        for place, word in enumerate(self._kept):
            if not word or place in known:
                continue
            page, count = word & -PAGE, (word % PAGE >> _COUNT_SHIFT) + 1
            if count <= MAX_PAGES and all(each in self.usable for each in (page, page + (count - 1) * PAGE)):
                self._waiting.append(_Bad(page, count, bool(word & _TOUCHED), self._log.clock(), place))
            else:  # damaged, or of a guest that was not this one
                self._kept[place] = 0

    def snapshot(self) -> list[list[int]]:
        """What waits: `[address, pages, 1 if touched]`. It goes along with a guest that leaves: what stood there is
        lost wherever it is.
        """
        return [[bad.page, bad.count, int(bad.touched)] for bad in self._waiting]

    def check(self, pages: list[list[int]]) -> None:
        """Raise `ProtocolError` if these, as `snapshot` has them, are not pages of this guest's."""
        for page, count, _ in pages:
            if page % PAGE or page not in self.usable or page + (count - 1) * PAGE not in self.usable:
                raise ProtocolError(f"state document: bad_pages: {count} from {page:#x} on are not the guest's RAM")

    def restore(self, pages: list[list[int]]) -> None:
        """Have these wait too."""
        known = [(bad.page, bad.count) for bad in self._waiting]
        for page, count, touched in pages:
            if (page, count) not in known:
                self._await(page, count, bool(touched))

    def leave(self) -> None:
        """The guest has moved, and what waits with it."""
        for bad in list(self._waiting):
            self._forget(bad)

    def tick(self) -> int:
        """Report what waits, as far as it can be. Returns after how many milliseconds this is to be called again."""
        if not self._waiting or self._paused():
            return FOREVER_MS
        now = self._log.clock()
        for bad in [bad for bad in self._waiting if not bad.told]:
            try:
                while bad.count and not bad.told:
                    self._next(bad)
            except SdeiError as error:
                if now - bad.since_ns >= LIMIT_NS:
                    more = f" and {bad.count - 1} behind it" if bad.count > 1 else ""
                    self._say(
                        f"page {bad.page:#x}{more} of guest RAM has gone bad, and was not reported: {error}", bad.page
                    )
                    self._forget(bad)
        return AGAIN_MS if any(not bad.told for bad in self._waiting) else FOREVER_MS

    def _next(self, bad: _Bad) -> None:
        """Report the first page of these. Raises `SdeiError`: it waits on."""
        # Told of by an abort or an interrupt it waits until a vCPU has come for it.
        bad.told = True
        try:
            _, later = self._tell(bad.page, None, None, touched=bad.touched, then=partial(self._told, bad))
        except SdeiError:
            bad.told = False
            raise
        if not later:
            self._done(bad)

    def _told(self, bad: _Bad, outcome: Outcome) -> None:
        if outcome.made is False:  # nobody came for it: by another source, or once more
            bad.told = False
        else:
            self._done(bad)

    def _done(self, bad: _Bad) -> None:
        """The first page of these is reported."""
        bad.told = False
        if bad.count == 1:
            self._forget(bad)
            return
        bad.page += PAGE
        bad.count -= 1
        self._kept[bad.place] = bad.word

    def _forget(self, bad: _Bad) -> None:
        self._kept[bad.place] = 0
        self._waiting.remove(bad)

    def _page(self, address: int) -> int:
        """The page of an address, if it is the guest's. Raises `UsageError`."""
        window = self._window
        page = address - address % PAGE
        if not window.ram_base <= page < window.ram_base + window.ram_size:
            end = window.ram_base + window.ram_size - 1
            raise UsageError(f"{address:#x} is no guest RAM: that is {window.ram_base:#x} to {end:#x}")
        if page not in self.usable:
            what = "the frame window" if page >= window.base else "the firmware's tables and error status blocks"
            raise UsageError(
                f"page {page:#x} is not the guest's: it belongs to {what}; start a new guest, or migrate this one"
            )
        return page

    def _tell(
        self, page: int, placed: ErrorSource | None, vcpu: int | None, *, touched: bool, then: Then | None = None
    ) -> tuple[Reported, bool]:
        """Report a page by a source that can. Returns how, and whether `then` will be told what became of it."""
        block = _block(page)
        order = (Notify.SEA, *_ORDER) if touched else _ORDER
        if placed is not None:
            tried = [placed]
        else:
            tried = sorted(self._sources.placed, key=lambda each: order.index(each.source.notify))
        if not tried:
            raise NotDeliveredError("the guest has no error source to report it by: it was not started with --ras")
        why: list[str] = []
        for each in tried:
            try:
                self._sources.check(each, block, vcpu, force=False)
                told = self._sources.tell(each, block, self._sources.target(each, vcpu), then=then)
            except NotDeliveredError as error:
                why.append(str(error))
                continue
            self._log.note("host-error", told, page=page, source=each.source.name, outcome="reported")
            later = each.source.interrupt is not None or each.source.notify is Notify.SEA
            return Reported(page, each.source.name, told), later
        raise NotDeliveredError("; ".join(why))

    def _say(self, text: str, page: int | None) -> None:
        complain(text)
        self._log.note("host-error", None, outcome="failed", why=text, **({} if page is None else {"page": page}))


def _block(page: int) -> bytes:
    """The status block for a page that is bad: recoverable, as nobody has used what was in it."""
    # Imported here: 0.1 s of tables, and most guests have no error sources. Those that do have them from the start.
    from qemu_sdei.ras.block import block
    from qemu_sdei.ras.entry import entry
    from qemu_sdei.ras.kinds import Memory

    section = Memory(physical_address=page, physical_address_mask=~(PAGE - 1) & (1 << 64) - 1)
    return block([entry(section, "recoverable")]).pack()
