"""`qemu-sdei inject`: trigger an SDEI event in a running guest, once or many times, and measure it."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.guest_name import add_guest, check_vcpu
from qemu_sdei.cli.output import Progress, add_verbosity, print_json, print_table, say
from qemu_sdei.errors import NotDeliveredError, SdeiError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_sdei.guest.control_client import ControlClient, Injection
    from qemu_sdei.trace.latency import Distributions
    from qemu_sdei.trace.ring_latencies import RingLatencies

MAX_COUNT: Final = 10_000_000
_READ_EACH: Final = 128
"""Injections between two looks into the guest's ring, which has room for some 1000."""
_OUTCOMES: Final = {"merged": "merged with one that was pending"}


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "inject",
        description="Trigger an SDEI event in a running guest. With --wait, wait until the guest's handler has "
        "completed it, and print the latency of each stage with its error (docs/howto/latency.md). If "
        "the event cannot be delivered, say why; the exit code is 1.",
    )
    add_guest(parser, "name", directory=True)
    parser.add_argument("--event", required=True, metavar="E", help="number (0x100) or name of the event")
    parser.add_argument(
        "--vcpu", type=int, metavar="N", help="vCPU, from 0; for a shared event the preferred one (default: any)"
    )
    parser.add_argument(
        "--when-registered",
        type=float,
        metavar="S",
        help="first wait up to S seconds until the guest has registered and enabled the event",
    )
    parser.add_argument("--count", type=int, default=1, metavar="C", help="how many times (default: 1)")
    parser.add_argument("--rate", type=float, metavar="R", help="at most R a second (default: as fast as possible)")
    parser.add_argument("--wait", action="store_true", help="wait until the guest's handler has completed each event")
    parser.add_argument("--histogram", action="store_true", help="with --wait: show how the latencies are distributed")
    parser.add_argument(
        "--timeout", type=float, default=5.0, metavar="S", help="seconds to wait for one event (default: 5)"
    )
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    if not 1 <= args.count <= MAX_COUNT:
        raise UsageError(f"--count {args.count} is not possible: give 1 to {MAX_COUNT}")
    if args.rate is not None and not 0 < args.rate < math.inf:
        raise UsageError("--rate must be more than 0 a second")
    if not 0 < args.timeout < math.inf:
        raise UsageError("--timeout must be more than 0 seconds")
    if args.histogram and not args.wait:
        raise UsageError("--histogram shows latencies, which are known with --wait only")
    if args.when_registered is not None and not 0 < args.when_registered < math.inf:
        raise UsageError("--when-registered must be more than 0 seconds")
    check_vcpu(args.vcpu)
    from qemu_sdei import rundir
    from qemu_sdei.guest import event_targets
    from qemu_sdei.guest.control_client import ControlClient

    guest = rundir.find(args.name)
    args.name = guest.name
    with ControlClient(guest.control, identity=guest.identity) as client:
        client.hello()
        event = event_targets.number(client, args.event)
        if args.when_registered is not None:
            with Progress(args.quiet or args.json) as progress:
                event_targets.wait_until_listens(client, event, args.vcpu, args.when_registered, tell=progress)
        began = time.monotonic()
        results: list[Injection] = []
        latencies = _latencies(guest.path, event) if args.wait else None
        try:
            _inject(client, event, args, results, latencies)
        except NotDeliveredError as error:
            raise NotDeliveredError(f"{error}{event_targets.why_not(client, event, guest.path)}") from None
        finally:
            elapsed = time.monotonic() - began
            # What was done before an error, or before Ctrl-C, is told too.
            if results:
                _report(args, event, results, elapsed, _distributions(latencies, results))
    return 0


def _latencies(directory: Path, event: int) -> RingLatencies | None:
    """Reads along with the guest's ring; None: it has none, such as one whose backend is of an older version."""
    from qemu_sdei import rundir
    from qemu_sdei.trace.ring_latencies import RingLatencies

    try:
        return RingLatencies(directory / rundir.TRACE, lambda life: life.event == event and life.by == "host")
    except SdeiError:
        return None


def _distributions(latencies: RingLatencies | None, results: list[Injection]) -> Distributions | None:
    """What the ring tells of these injections; None: nothing, or not of all of them, as when the guest has moved."""
    if latencies is None:
        return None
    completed = sum(result.outcome == "completed" for result in results)
    latencies.finish(completed)
    latencies.close()
    return latencies.found if latencies.found.outcomes["completed"] else None


def number_of(text: str, events: Mapping[int, str]) -> int:
    """The number of the event that `text` is the number or the name of, among `events`. Raises `UsageError`."""
    try:
        return int(text, 0)
    except ValueError:
        pass
    names = {name: number for number, name in events.items()}
    if text not in names:
        raise UsageError(f"there is no event named {text!r}; this guest has {', '.join(names) or 'none (--no-sdei)'}")
    return names[text]


def _inject(
    client: ControlClient,
    event: int,
    args: argparse.Namespace,
    results: list[Injection],
    latencies: RingLatencies | None,
) -> None:
    began = told = time.monotonic()
    # For somebody who looks on only: a line a second would be too much of it in a log.
    with Progress(args.quiet or args.json or not sys.stderr.isatty()) as progress:
        if args.wait:
            progress(f"waiting for the handler of {_what(event, args.vcpu)}")
        for number in range(args.count):
            if args.rate is not None:
                wait = began + number / args.rate - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
            results.append(client.inject(event, args.vcpu, wait=args.wait, timeout=args.timeout))
            if latencies is not None and number % _READ_EACH == 0:
                latencies.read()
            if (now := time.monotonic()) - told >= 1:
                told = now
                progress(f"{number + 1} of {args.count} injected")


def _what(event: int, vcpu: int | None) -> str:
    return f"event {event:#x}" + ("" if vcpu is None else f" on vCPU {vcpu}")


def percentiles(values: Sequence[int]) -> dict[str, float]:
    """Minimum, median, 99th percentile and maximum of `values` (nanoseconds), in microseconds."""
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] / 1000

    return {"min": ordered[0] / 1000, "median": at(0.5), "p99": at(0.99), "max": ordered[-1] / 1000}


def _report(
    args: argparse.Namespace,
    event: int,
    results: list[Injection],
    elapsed: float,
    found: Distributions | None,
) -> None:
    outcomes = Counter(result.outcome for result in results)
    latencies = {
        name: percentiles(values)
        for name, values in (
            ("entry", [r.entry_ns for r in results if r.entry_ns is not None]),
            ("complete", [r.complete_ns for r in results if r.complete_ns is not None]),
        )
        if values
    }
    last = results[-1]
    if args.json:
        print_json(
            {
                "guest": args.name,
                "event": event,
                "vcpu": args.vcpu,
                "count": len(results),
                "outcomes": dict(outcomes),
                "reason": last.reason,
                "seconds": round(elapsed, 6),
                "latency_us": latencies,
                "latencies": None if found is None else found.document(buckets=args.histogram),
            }
        )
        return
    if args.quiet:
        return
    what = _what(event, args.vcpu)
    if len(results) == 1:
        if latencies:
            entry, complete = latencies["entry"]["min"], latencies["complete"]["min"]
            say(f"{what}: completed; handler entered after {entry:.0f} µs, completed after {complete:.0f} µs")
            if found is not None:
                _tell_one(found)
        else:
            say(f"{what}: {_OUTCOMES.get(last.outcome, last.outcome)}" + (f" ({last.reason})" if last.reason else ""))
        return
    counts = ", ".join(f"{count} {_OUTCOMES.get(outcome, outcome)}" for outcome, count in sorted(outcomes.items()))
    say(f"{what}: {len(results)} injected in {elapsed:.3f} s ({len(results) / max(elapsed, 1e-9):.0f}/s): {counts}")
    if last.reason:
        say(f"the last one is not delivered yet: {last.reason}")
    if found is not None:
        _tell_many(found, outcomes["completed"], histogram=args.histogram)
    elif latencies:
        print_table(
            "",
            ["latency, µs", "min", "median", "p99", "max"],
            [
                [{"entry": "handler entered", "complete": "completed"}[name], *(f"{v:.1f}" for v in values.values())]
                for name, values in latencies.items()
            ],
        )


def _tell_one(found: Distributions) -> None:
    """Where the time of a single injection went."""
    from qemu_sdei.trace.latency import STAGES, duration

    stages = found.document()["stages"]
    parts = []
    for name in ("to_el3", "decision", "handler"):
        if name in stages:
            error = duration(stages[name]["error_us"] * 1000)
            parts.append(f"{STAGES[name][0]} {duration(stages[name]['min'] * 1000)} ± {error}")
    if parts:
        say("  " + ", ".join(parts))
    if "in_guest" in stages:
        say(f"  {STAGES['in_guest'][0]} {duration(stages['in_guest']['min'] * 1000)}, by the guest's counter")


def _tell_many(found: Distributions, completed: int, *, histogram: bool) -> None:
    from qemu_sdei.trace.latency import COLUMNS, STAGES, table

    summary = found.document()
    # Without the spaces, so that a row fits into 80 columns.
    print_table("", COLUMNS, [[title, *(cell.replace(" ", "") for cell in cells)] for title, *cells in table(summary)])
    if (known := found.outcomes["completed"]) != completed:
        say(f"these figures are of {known} of them: of the others the guest's trace ring does not tell")
    if found.disturbed:
        say("not in these figures: " + ", ".join(f"{n} by a {what}" for what, n in sorted(found.disturbed.items())))
    if found.merged:
        say(f"{found.merged} more triggers were merged into these")
    if histogram:
        for name in ("to_el3", "handler", "complete"):
            if name in found.stages:
                say(f"{STAGES[name][0]}:", *(f"  {line}" for line in found.stages[name].lines(78)), "")
