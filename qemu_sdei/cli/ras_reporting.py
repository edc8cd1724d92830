"""What `ras inject` does with a guest, and what it says of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

from qemu_sdei import rundir
from qemu_sdei.cli.output import Progress, print_json, say
from qemu_sdei.cli.ras_making import Made, varied
from qemu_sdei.errors import LostGuestError, UsageError
from qemu_sdei.guest.ras import GuestRas
from qemu_sdei.guest.ras_access import of_running
from qemu_sdei.guest.ras_expecting import Expectation, Log, Offline, Panics, Sigbus, Trace, instead
from qemu_sdei.guest.ras_observing import Observed, Observer
from qemu_sdei.guest.ras_pages import Page
from qemu_sdei.guest.ras_report import TIMEOUT, Report, check_observable, expect
from qemu_sdei.guest.ras_victim import Victim
from qemu_sdei.ras.block import Block
from qemu_sdei.ras.kinds import Kinds
from qemu_sdei.ras.libcper import to_json
from qemu_sdei.ras.printed import printed
from qemu_sdei.ras.severity import NAMES, Severity

VICTIM: Final = "victim"
_ROW: Final = 16
_REPORT: Final = ("source", "outcome", "bytes", "vcpu", "event", "entry_ns", "complete_ns", "state")
"""What is told of each report as JSON."""


def show(made: Iterable[Made], *, json_output: bool) -> None:
    """Print records and their bytes."""
    for number, each in enumerate(made):
        data = _packed(each)
        if json_output:
            document = None if isinstance(each, bytes) else to_json(each)
            print_json({"record": document, "bytes": data.hex()})
            continue
        if number:
            say("")
        words = f"{len(data)} bytes, wrong on purpose\n" if isinstance(each, bytes) else printed(each)
        say(*words.split("\n"))
        say(*(f"{at:#06x}  {data[at : at + _ROW].hex(' ')}" for at in range(0, len(data), _ROW)))


class Reporting:
    """One run of `ras inject` with a guest."""

    def __init__(self, args: argparse.Namespace, ras: GuestRas) -> None:
        self._args = args
        self._ras = ras
        self._victim: Victim | None = None
        self.page: Page | None = None
        self.reports: list[Report] = []
        self.seconds = 0.0

    def _option(self, name: str, default: Any = None) -> Any:
        return getattr(self._args, name, default)

    def place(self) -> int | None:
        """The physical address of the error, where it is said. Raises `UsageError`."""
        pid, address, virtual = self._option("pid"), self._option("address"), self._option("virtual")
        if pid is None:
            if virtual is not None:
                raise UsageError("--virtual is an address of a process: give --pid too")
            return None if address is None else int(address)
        if address is not None or self._option("random") is not None:
            raise UsageError("--pid says where the error is: leave out --address and --random")
        if self._option("count", 1) > 1:
            raise UsageError("--pid is of one page: leave out --count")
        number = self._pid(pid, "--pid")
        if self._victim is not None and virtual is None:
            virtual = self._victim.virtual
        self.page = self._ras.page(number, virtual)
        return self.page.physical

    def _pid(self, text: str, option: str) -> int:
        """The process that is meant; a victim is started where it is the first time that it is named."""
        if text == VICTIM:
            if self._victim is None:
                self._victim = self._ras.victim()
            return self._victim.pid
        if not text.isdecimal() or not 1 <= int(text) <= 1 << 22:
            raise UsageError(f"{option} {text[:60]!r} is not a process: give its number in the guest, or {VICTIM}")
        return int(text)

    def expected(self) -> list[Expectation]:
        """What is expected. Raises `UsageError`: it cannot be."""
        found: list[Expectation] = [Log.of(text) for text in self._option("expect_log", [])]
        found += [Trace.of(text) for text in self._option("expect_trace", [])]
        for text in self._option("expect_sigbus", []):
            process, colon, code = text.rpartition(":")
            if not colon or not code.isdecimal() or len(code) > 9:
                raise UsageError(f"--expect-sigbus {text[:60]!r}: write PID:CODE, such as 123:4, or {VICTIM}:4")
            pid = self._pid(process, "--expect-sigbus")
            found.append(Sigbus(pid, int(code), self._ras.threads(pid)))
        if (panic := self._option("expect_panic")) is not None:
            found.append(Panics(Log.of(panic).pattern))
        if (frame := self._option("expect_offline")) is not None:
            found.append(Offline(self._frame(frame)))
        return found

    def _frame(self, text: str) -> int:
        if text:
            try:
                return int(text, 0)
            except ValueError:
                raise UsageError(
                    f"--expect-offline {text[:60]!r} is not a page frame number, such as 0x41e78"
                ) from None
        address = self.page.physical if self.page is not None else self._option("address")
        if address is None:
            raise UsageError("--expect-offline without a number is the page of --pid or --address: give one of them")
        return int(address) // (self.page.size if self.page is not None else 4096)

    def inject(self, made: Iterable[Made]) -> None:
        """Report all of it. Raises `SdeiError`."""
        began = told = time.monotonic()
        rate = self._option("rate")
        quiet = self._option("quiet", False) or self._option("json", False) or not sys.stderr.isatty()
        with Progress(quiet) as progress:
            for number, each in enumerate(made):
                if rate is not None and (wait := began + number / rate - time.monotonic()) > 0:
                    time.sleep(wait)
                self.reports.append(
                    self._ras.inject_block(
                        each,
                        source=self._option("source"),
                        vcpu=self._option("vcpu"),
                        fault=None if self.page is None else self.page.virtual,
                        wait=False if self._option("no_wait", False) else None,
                        force=self._option("force", False),
                        observe=False,
                        timeout=self._option("timeout", TIMEOUT),
                    )
                )
                if (now := time.monotonic()) - told >= 1:
                    told = now
                    progress(f"{number + 1} reported")
        self.seconds = time.monotonic() - began


_NOT_WITH_NEXT_BOOT: Final = (
    "source", "vcpu", "rate", "no_wait", "force", "malform",
    "expect_log", "expect_trace", "expect_sigbus", "expect_panic", "expect_offline",
)  # fmt: skip


def keep(args: argparse.Namespace, made: list[Block], kinds: Kinds) -> int:
    """Have the guest's next boot tell of these errors. Returns the exit code."""
    for name in _NOT_WITH_NEXT_BOOT:
        if getattr(args, name, None) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is of errors that are reported now: leave out --next-boot")
    with of_running(rundir.find(args.name), console=False) as access, GuestRas(access) as ras:
        address = Reporting(args, ras).place()
        everything = list(varied(made, args, kinds, address=address, ram=ras.ram))
        for each in everything:
            assert isinstance(each, Block), "nothing is malformed"
            ras.keep_for_next_boot(each)
    if getattr(args, "json", False):
        print_json({"guest": args.name, "kept": [len(each) for each in map(_packed, everything)]})
    elif not getattr(args, "quiet", False):
        for each in everything:
            say(f"{_summary(each)}: kept for the BERT of the next boot")
    return 0


def _packed(made: Made) -> bytes:
    return made if isinstance(made, bytes) else made.pack()


def report(args: argparse.Namespace, made: list[Block], kinds: Kinds) -> int:
    """Report errors to the guest, and check what is expected. Returns the exit code."""
    guest = rundir.find(args.name)
    fatal = any(each.severity == Severity.FATAL for each in made)
    console = fatal or any(getattr(args, name, None) is not None for name in ("expect_log", "expect_panic"))
    with of_running(guest, console=console) as access, GuestRas(access) as ras:
        one = Reporting(args, ras)
        address = one.place()
        wanted = one.expected()
        # What cannot be is found before the guest is told of anything.
        everything = list(varied(made, args, kinds, address=address, ram=ras.ram))
        if getattr(args, "dry_run", False):
            show(everything, json_output=getattr(args, "json", False))
            return 0
        looks = bool(wanted) or (len(everything) == 1 and not getattr(args, "quiet", False) and not fatal)
        observer = ras.observing() if looks else None
        if observer is not None:
            check_observable(observer, wanted)
        try:
            one.inject(everything)
        except LostGuestError:
            if observer is None or observer.look().panic is None:
                raise
        finally:
            if one.reports and not getattr(args, "json", False) and not getattr(args, "quiet", False):
                _tell(one, everything)
        observed = Observed()
        if observer is not None:
            observed = _judged(observer, wanted, args)
        _tell_rest(args, one, wanted, observed)
    return 0


def _judged(observer: Observer, wanted: list[Expectation], args: argparse.Namespace) -> Observed:
    if wanted:
        return expect(observer, wanted, getattr(args, "timeout", TIMEOUT))
    return observer.look()


def _tell(one: Reporting, made: list[Made]) -> None:
    last = one.reports[-1]
    if len(one.reports) > 1:
        done = sum(each.outcome == "completed" for each in one.reports)
        count = len(one.reports)
        say(
            f"{last.source}: {count} reported in {one.seconds:.3f} s ({count / max(one.seconds, 1e-9):.0f}/s): "
            f"{done} dealt with" + (f", {count - done} not waited for, or not yet" if done != count else "")
        )
        return
    where = "" if last.vcpu is None else f" on vCPU {last.vcpu}"
    what = _summary(made[0])
    if one.page is not None:
        what += f" in a page of process {one.page.pid} ({one.page.what}) at {one.page.physical:#x}"
    say(f"{last.source}{where}: {what}: {_outcome(last)}")


def _summary(made: Made) -> str:
    if isinstance(made, bytes):
        return f"{len(made)} bytes, wrong on purpose"
    kinds = ", ".join(each.section.kind.name for each in made.entries) or "no section"
    return f"{kinds}, {NAMES.get(made.severity, str(made.severity)).lower()}, {len(made.pack())} bytes"


def _outcome(last: Report) -> str:
    if last.complete_ns is not None:
        words = f"handled in {last.complete_ns / 1000:.0f} µs"
    else:
        words = "dealt with" if last.outcome == "completed" else "reported"
    if last.state == "free":
        return words + ", read and acknowledged"
    return words + (f"; the block is {last.state}" if last.state else "")


def _tell_rest(args: argparse.Namespace, one: Reporting, wanted: list[Expectation], observed: Observed) -> None:
    if getattr(args, "json", False):
        print_json(_document(args, one, wanted, observed))
    elif not getattr(args, "quiet", False):
        for each in wanted:
            say(f"  came: {each}")
        for line in instead(observed):
            say(f"  {line}")


def _document(
    args: argparse.Namespace, one: Reporting, wanted: list[Expectation], observed: Observed
) -> dict[str, Any]:
    page = one.page
    return {
        "guest": args.name,
        "seconds": round(one.seconds, 6),
        "page": None
        if page is None
        else {"pid": page.pid, "virtual": page.virtual, "physical": page.physical, "what": page.what},
        "reports": [{name: getattr(each, name) for name in _REPORT} for each in one.reports],
        "came": [str(each) for each in wanted],
        "observed": {
            "log": observed.log,
            "trace": [{"event": each.name, "text": each.text} for each in observed.trace],
            "signals": [
                {"pid": each.pid, "code": each.code, "address": each.address, "lsb": each.lsb}
                for each in observed.signals
            ],
            "corrupted_kib": observed.corrupted,
            "panic": observed.panic,
        },
    }
