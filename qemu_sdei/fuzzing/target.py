"""One guest that is shown errors: what became of each, and the guest as it was before."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from qemu_sdei.errors import GuestError, NotDeliveredError, SdeiError, UsageError
from qemu_sdei.fuzzing import stacks
from qemu_sdei.fuzzing.copies import closed, copy_of
from qemu_sdei.fuzzing.pulse import Beat, Pulse
from qemu_sdei.fuzzing.unlimited import lift
from qemu_sdei.fuzzing.verdicts import Observed
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.host.progress import Progress, no_progress
from qemu_sdei.ras.any_record import Shape
from qemu_sdei.symbols.symbolizer import Symbolizer

LIMIT: Final = 20.0
"""Seconds until a guest that says nothing hangs."""
RAM: Final = 0x4000_0000
_QUIET: Final = 1.5
"""Seconds of silence after which a guest that panics has said all."""
_LAST_WORDS: Final = 8.0
_PATIENCE: Final = 600.0
"""Seconds for what is done once: it takes two, and minutes on a host that has no time."""
_LATE: Final = 0.7
"""Seconds for work that the kernel has put off, where one case is looked at alone."""
_EARLY: Final = 0.2
"""Of the limit: when a handler that still runs is looked at for the first time."""
_LOOK: Final = 0.05
_LOOK_FIRST: Final = 0.001
_RECORDS: Final = 200


def chosen(sources: list[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    """The error source to report by: the one that is wanted, or the first that the kernel would notice.

    Raises `UsageError`: there is none.
    """
    if not sources:
        raise UsageError("the guest has no error source: start it with --ras")
    names = ", ".join(str(each["name"]) for each in sources)
    if wanted is not None:
        sources = [each for each in sources if each["name"] == wanted]
        if not sources:
            raise UsageError(f"the guest has no error source {wanted!r}; it has {names}")
    ready = [each for each in sources if each["ready"]]
    if not ready:
        first = sources[0]
        raise UsageError(f"no error reaches the guest's kernel by source {first['name']!r}: {first['reason']}")
    return ready[0]


class Target:
    """A copy of a guest, again and again the same one."""

    def __init__(
        self,
        state: Path,
        *,
        source: str | None = None,
        trust: bool = True,
        limit: float = LIMIT,
        symbolizer: Symbolizer | None = None,
        progress: Progress = no_progress,
    ) -> None:
        """`state`: a directory with a saved guest in which nobody has been; `limit`: seconds until it hangs."""
        self._made = state
        self._trust = trust
        self._wanted = source
        self._limit = limit
        self._symbolizer = symbolizer
        self._progress = progress
        self._room = Path(tempfile.mkdtemp(prefix="qemu-sdei-fuzz-"))
        self._guest: Guest | None = None
        self._pulse: Pulse | None = None
        self._handled: int | None = None
        self._hung: set[tuple[str, ...]] = set()
        """Call traces of handlers that did not end."""
        self.source: dict[str, Any] = {}
        """The error source, as the backend describes it."""
        self.kernel = ""
        """What the guest's kernel calls itself."""
        self.unlimited = False
        """The kernel prints each error."""
        self.restored = 0
        """How often the guest was brought back."""
        self.restore_seconds = 0.0
        """What that took in all."""

    def __enter__(self) -> Target:
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the copy, and forget its state; as often as one likes."""
        self._end()
        shutil.rmtree(self._room, ignore_errors=True)

    @property
    def shape(self) -> Shape:
        """What errors for this guest are like."""
        guest = self._guest
        assert guest is not None
        return Shape(size=int(self.source["block"]), ram=(RAM, RAM + int(guest.options.memory)))

    @property
    def guest(self) -> Guest:
        """The copy that runs now."""
        assert self._guest is not None
        return self._guest

    def _prepare(self) -> None:
        """Have the loop run in a copy, and keep that copy: what is restored from then on needs nothing any more."""
        self._progress("restoring the guest")
        with copy_of(self._made, trust=self._trust) as guest:
            self._progress("preparing the guest's shell")
            guest.wait_shell(_PATIENCE)
            self.kernel = guest.run("uname -srv", timeout=_PATIENCE).output.strip()[:200]
            with guest.client() as control:
                self.source = chosen(control.ras_sources(), self._wanted)
            self.unlimited = lift(guest) > 0
            self._pulse = Pulse.start(guest)
            self._progress("saving the guest")
            guest.save(self._room / "state", timeout=_PATIENCE)
        self.restore(count=False)

    def restore(self, *, count: bool = True) -> None:
        """Have the guest be as it was. Raises `GuestError`: it does not come back."""
        began = time.monotonic()
        self._end()
        self._guest = copy_of(self._room / "state", trust=True)
        self._guest.start()
        beat = self.pulse.beat(self._guest, self._limit + 10)
        if beat is None:
            raise GuestError(
                "the guest does not go on where it was saved", console=self.guest.console_text.last_lines()
            )
        self._handled = beat.handled
        if count:
            self.restored += 1
            self.restore_seconds += time.monotonic() - began

    @property
    def pulse(self) -> Pulse:
        """The heartbeat of all copies."""
        assert self._pulse is not None
        return self._pulse

    def _end(self) -> None:
        guest, self._guest = self._guest, None
        if guest is not None:
            closed(guest)

    def show(self, data: bytes, *, alone: bool = False) -> Observed:
        """Report an error with these bytes, and look what becomes of it.

        Args:
            data: of the whole status block.
            alone: wait for work that the kernel puts off, too.

        Raises:
            SdeiError: it could not be reported, or the guest was lost by no fault of its kernel's.
        """
        guest = self.guest
        start = guest.console_text.end
        with guest.client() as control:
            try:
                control.ras_report(str(self.source["name"]), data, raw=True, force=True)
            except NotDeliveredError as error:
                # An error before has left the source in a state that takes no more.
                return self._seen(start, None, completed=False, note=str(error))
            completed = self._is_handled(control, start)
        beat = self.pulse.beat(guest, self._limit) if completed else None
        if beat is not None and alone:
            time.sleep(_LATE)
            beat = self.pulse.beat(guest, self._limit)
        return self._seen(start, beat, completed=completed)

    def _is_handled(self, control: ControlClient, start: int) -> bool:
        """Whether the kernel's handler has ended, within the limit; not of one that panics, or hangs where another
        handler has hung before.
        """
        began = time.monotonic()
        pause = _LOOK_FIRST
        early = False
        while not self.guest.console_text.panicked_since(start):
            if self._is_idle(control):
                return True
            waited = time.monotonic() - began
            if waited >= self._limit:
                break
            if not early and waited >= self._limit * _EARLY:
                early = True
                if self._stuck() in self._hung:
                    break
            time.sleep(pause)
            pause = min(2 * pause, _LOOK)
        return False

    def _is_idle(self, control: ControlClient) -> bool:
        """Whether nothing is to be handled any more."""
        event = self.source.get("event")
        if event is None:
            name = self.source["name"]
            return all(each["state"] != "unread" for each in control.ras_sources() if each["name"] == name)
        instances = [each["instances"] for each in control.status()["events"] if each["event"] == event]
        return not any(each["pending"] or each["running"] for found in instances for each in found)

    def _seen(self, start: int, beat: Beat | None, *, completed: bool, note: str = "") -> Observed:
        console = self.guest.console_text
        stuck: tuple[str, ...] = ()
        if beat is None:
            if not console.panicked_since(start):
                stuck = self._stuck()
                self._hung |= {stuck} if stuck else set()
            self._hear_out(start)
        text = self.pulse.without(console.since(start)[0])
        taken = None
        if beat is not None and beat.handled is not None and self._handled is not None:
            taken = beat.handled != self._handled
            self._handled = beat.handled
        return Observed(text + note, completed=completed, alive=beat is not None, taken=taken, stuck=stuck)

    def _hear_out(self, start: int) -> None:
        """Wait until the guest has said all that it says of what befell it."""
        console = self.guest.console_text
        deadline = time.monotonic() + _LAST_WORDS
        end, since = console.end, time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < _QUIET:
            if "---[ end Kernel panic" in console.since(start)[0]:
                return
            time.sleep(_LOOK)
            if console.end != end:
                end, since = console.end, time.monotonic()

    def _stuck(self) -> tuple[str, ...]:
        """Where a guest that hangs is, as far as names are known."""
        names = self._symbolizer
        if names is None:
            return ()

        def name(address: int) -> str | None:
            found = names.name(address)
            return None if found.startswith("0x") else found.partition("+")[0]

        with contextlib.suppress(SdeiError):
            for record in self.guest.trace(_RECORDS):
                names.learn(record)
            return stacks.stuck(self.guest, self.guest.options.smp, name)
        return ()
