"""`scripts/bench`: what the Python firmware costs, each figure beside a reference that ran a moment before or after
it.

The references are a C program on the same window (the floor: what carrying a frame costs when nobody decides
anything) and plain QEMU. Absolute figures are this machine's and this moment's; the ratios are what to look at. Runs
of the two sides alternate, and the medians of all rounds are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from qemu_sdei import idle_states, rundir
from qemu_sdei.boot.config import BootConfig
from qemu_sdei.config import RAM_BASE
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.monitor import layout
from scripts.benchlib import (
    above_el2,
    boots,
    fixtures,
    ged,
    in_process,
    launch,
    load,
    low_latency,
    migration,
    ras,
    services,
    tables,
    terminal,
    trace,
)
from scripts.benchlib.busy import busy
from scripts.benchlib.checkout import ROOT, checkout
from scripts.benchlib.processes import cpu_seconds
from scripts.benchlib.table import Table, earlier, host_state

RAM: Final = 256 << 20
HERE: Final = Path(__file__).parent

Figures = list[dict[str, float]]
"""One entry a round: figure by name, in ns."""


def boot_config(append: str, cpus: int = 1, conduit: Literal["smc", "hvc"] = "smc") -> BootConfig:
    """The bench guest, with its command line. `conduit`: "hvc" for a guest above our EL2."""
    hidden = RAM_BASE + RAM - layout.window_base(RAM_BASE, RAM)
    return BootConfig(
        kind="flat",
        kernel="builtin:bench",
        append=append,
        conduit=conduit,
        ram_size=RAM,
        hidden_size=hidden,
        nr_cpus=cpus,
    )


def build_floor(directory: Path) -> Path:
    """Compile the C side with the host's compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("scripts/bench: no C compiler for this host: install gcc")
    out = directory / "floor"
    include = HERE.parent.parent / "guest" / "monitor"
    subprocess.run([compiler, "-O2", f"-I{include}", "-o", str(out), str(HERE / "floor.c")], check=True)
    return out


def guest_figures(
    qemu: str, append: str, name: str, floor: Path | None, tree: Path = ROOT, conduit: Literal["smc", "hvc"] = "smc"
) -> dict[str, float]:
    """Median and p99 in ns that the bench guest prints."""
    with launch.guest(qemu, boot_config(append, conduit=conduit), floor=floor, checkout=tree) as guest:
        match = guest.expect(rf"{name}: .*median_ns=(\d+) p99_ns=(\d+)\s", 60)
        return {"median": float(match[1]), "p99": float(match[2])}


def inject_python(
    qemu: str, count: int, cpus: int, tree: Path = ROOT, conduit: Literal["smc", "hvc"] = "smc"
) -> dict[str, float]:
    """Latencies of `inject` into an idle guest, as the backend measures them: trigger to handler entry, and to
    COMPLETE.
    """
    entry: list[float] = []
    complete: list[float] = []
    with launch.guest(qemu, boot_config(f"mode=idle smp={cpus}", cpus, conduit), checkout=tree) as guest:
        guest.expect("idle: ready", 20)
        with ControlClient(guest.directory / rundir.CONTROL) as client:
            for _ in range(count):
                time.sleep(0.002)
                result = client.inject(0, cpus - 1, wait=True)
                entry.append(result.entry_ns or 0)
                complete.append(result.complete_ns or 0)
    return figures("entry", entry) | figures("complete", complete)


def inject_floor(qemu: str, count: int, cpus: int, floor: Path) -> dict[str, float]:
    """The same, measured in the C program."""
    with launch.guest(qemu, boot_config(f"mode=idle smp={cpus}", cpus), floor=floor, injections=count) as guest:
        assert guest.backend is not None
        guest.backend.wait(60)
        text = (guest.directory / "floor.out").read_text()
    values: dict[str, float] = {}
    for line in text.splitlines():
        name, median, p99 = line.split()
        kind = name.removeprefix("inject_")
        values[f"{kind}_median"] = float(median.split("=")[1])
        values[f"{kind}_p99"] = float(p99.split("=")[1])
    return values


def figures(name: str, values: list[float]) -> dict[str, float]:
    """Median and p99."""
    ordered = sorted(values)
    return {f"{name}_median": statistics.median(ordered), f"{name}_p99": ordered[len(ordered) * 99 // 100]}


def idle_share(qemu: str, seconds: float) -> float:
    """Share of a core that the backend of an idle Linux-less guest takes, from its CPU time."""
    with launch.guest(qemu, boot_config("mode=idle smp=2", 2)) as guest:
        guest.expect("idle: ready", 20)
        time.sleep(0.2)
        assert guest.backend is not None
        before = cpu_seconds(guest.backend.pid)
        time.sleep(seconds)
        return (cpu_seconds(guest.backend.pid) - before) / seconds


def say(text: str) -> None:
    """Progress: one line that changes on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def paths(scale: int) -> tuple[tuple[str, str, str, str], ...]:
    """The paths that a guest measures itself: label, its command line, the word before its figures, aim."""
    return (
        ("SDEI_VERSION, hot", f"mode=hot count={200000 // scale}", "hot", "<= 1.5x"),
        ("SDEI_VERSION, cold", f"mode=cold count={400 // scale} gap_us=2000", "cold", ""),
        ("SIGNAL to COMPLETE", f"mode=signal count={50000 // scale}", "signal", "<= 5 us"),
    )


def measure_against(
    qemu: str, rounds: int, scale: int, trees: tuple[Path, Path], table: Table, aims: Sequence[str] = ()
) -> None:
    """The hot paths of this checkout and of another, in turns; who is first changes from round to round. `aims`: of the
    calls, in place of 1.05x.
    """
    wanted = iter(aims)

    def both(label: str, measure: Callable[[Path], dict[str, float]]) -> tuple[Figures, Figures]:
        sides: tuple[Figures, Figures] = ([], [])
        for n in range(rounds):
            say(f"{label}, round {n + 1} of {rounds}")
            for side in (0, 1) if n % 2 == 0 else (1, 0):
                sides[side].append(measure(trees[side]))
        return sides

    aim = "<= 1.05x"
    for label, append, key, _ in paths(scale):
        if key == "cold":
            continue  # how long the host takes to wake a process, which no checkout changes
        this, other = both(label, lambda tree, a=append, k=key: guest_figures(qemu, a, k, None, tree))  # type: ignore[misc]
        table.add_medians(f"{label}: median", "median", this, other, next(wanted, aim))
    for cpus in (1, 2):
        label = f"inject into vCPU {cpus - 1}"
        this, other = both(label, lambda tree, c=cpus: inject_python(qemu, 300 // scale, c, tree))  # type: ignore[misc]
        for name in ("entry_median", "complete_median"):
            table.add_medians(f"{label}: {name.replace('_', ' ')}", name, this, other, aim)


def measure_calls(qemu: str, floor: Path, rounds: int, scale: int, table: Table) -> None:
    """SDEI_VERSION in a loop and out of the blue; an event signalled to oneself and completed."""
    for label, append, key, aim in paths(scale):
        python: Figures = []
        c: Figures = []
        for n in range(rounds):
            say(f"{label}, round {n + 1} of {rounds}")
            c.append(guest_figures(qemu, append, key, floor))
            python.append(guest_figures(qemu, append, key, None))
        table.add_medians(f"{label}: median", "median", python, c, aim)
        table.add_medians(f"{label}: p99", "p99", python, c)


def measure_injections(qemu: str, floor: Path, rounds: int, scale: int, table: Table) -> None:
    """Events from the host into an idle guest: the last vCPU takes them."""
    for cpus in (1, 2):
        python: Figures = []
        c: Figures = []
        for n in range(rounds):
            say(f"inject, {cpus} vCPU(s), round {n + 1} of {rounds}")
            c.append(inject_floor(qemu, 300 // scale, cpus, floor))
            python.append(inject_python(qemu, 300 // scale, cpus))
        for key, aim in (
            ("entry_median", "<= 50 us"),
            ("entry_p99", ""),
            ("complete_median", ""),
            ("complete_p99", ""),
        ):
            table.add_medians(f"inject into vCPU {cpus - 1}: {key.replace('_', ' ')}", key, python, c, aim)


def measure_above_el2(qemu: str, rounds: int, scale: int, table: Table) -> None:
    """The hot paths of a guest above our EL2, which calls by HVC, beside those of one that calls by SMC."""
    conduits: tuple[Literal["hvc"], Literal["smc"]] = ("hvc", "smc")
    for label, append, key, _ in paths(scale):
        found: dict[str, Figures] = {"hvc": [], "smc": []}
        for n in range(rounds):
            say(f"{label}, round {n + 1} of {rounds}")
            for conduit in conduits if n % 2 == 0 else conduits[::-1]:
                found[conduit].append(guest_figures(qemu, append, key, None, conduit=conduit))
        table.add_medians(f"{label}: median", "median", found["hvc"], found["smc"])
    injected: dict[str, Figures] = {"hvc": [], "smc": []}
    for n in range(rounds):
        say(f"inject, round {n + 1} of {rounds}")
        for conduit in conduits:
            injected[conduit].append(inject_python(qemu, 300 // scale, 2, conduit=conduit))
    for key in ("entry_median", "complete_median"):
        table.add_medians(f"inject into vCPU 1: {key.replace('_', ' ')}", key, injected["hvc"], injected["smc"])


def measure_low_latency(qemu: str, rounds: int, scale: int, table: Table) -> None:
    """A call out of the blue, and events into an idle guest, with the host's cores kept awake and without."""
    label, append, key, _ = next(path for path in paths(scale) if path[2] == "cold")
    wanted = {f"{label}: median": ("median", lambda: guest_figures(qemu, append, key, None))}
    for cpus in (1, 2):
        take = partial(inject_python, qemu, 300 // scale, cpus)
        wanted[f"inject into vCPU {cpus - 1}: entry median"] = ("entry_median", take)
    low_latency.measure(rounds, wanted, say, table)


def measure_load(qemu: str, rounds: int, table: Table) -> None:
    """What events cost a Linux that handles them."""
    for cpus in (1, 2, 4):
        say(f"sustained events, {cpus} vCPU(s)")
        found = load.sustained(qemu, cpus, 1.5 * rounds)
        table.add(f"events handled by Linux, {cpus} vCPU(s)", "1/s", found.rate, 0)
        table.add("... of those accepted, merged", "", found.merged, 0)
        table.add("... backend meanwhile: share of a core", "", found.share, 0)
    rates = (0, 100, 1000)
    times = load.slowdown(qemu, rates, rounds, say)
    for name in load.WORK:
        for rate in rates[1:]:
            slowed, alone = times[name, rate], times[name, 0]
            table.add(f"{name} work, {rate} events/s (none)", "s", slowed.seconds, alone.seconds)
            table.add("... handled meanwhile", "1/s", slowed.rate, 0)


def main() -> int:
    """Run everything and print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="What the Python firmware costs, as ratios.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (default 5)")
    parser.add_argument("--quick", action="store_true", help="fewer calls, two rounds, no boot")
    parser.add_argument("--load", action="store_true", help="only what events cost a Linux that handles them")
    parser.add_argument("--qemu", default="qemu-system-aarch64")
    parser.add_argument("--boot", action="store_true", help="boots only")
    parser.add_argument("--migrate", action="store_true", help="only migrations, beside those of plain QEMU")
    parser.add_argument(
        "--against",
        metavar="REV|DIR",
        help="measure the hot paths of another checkout in turns with this one's instead",
    )
    parser.add_argument("--ras", action="store_true", help="only hardware errors in a Linux that handles them")
    parser.add_argument(
        "--beside",
        metavar="QEMU",
        help="with --ras: a QEMU of version 11.1 or newer, beside whose own error injection ours is measured, on it",
    )
    parser.add_argument("--services", action="store_true", help="only cross timestamps and stolen time of a Linux")
    parser.add_argument(
        "--fixtures", action="store_true", help="only how soon a test has its guest from a saved state, beside a boot"
    )
    parser.add_argument(
        "--terminal", action="store_true", help="only many lines of a command, and the way to a first handled event"
    )
    parser.add_argument("--trace", action="store_true", help="what the trace costs, beside a backend without it")
    parser.add_argument("--hypervisor", action="store_true", help="only what --hypervisor costs: calls, work, boots")
    parser.add_argument("--low-latency", action="store_true", help="only what run --low-latency brings")
    parser.add_argument(
        "--in-process",
        action="store_true",
        help="only what the backend's code needs for a call, without QEMU, beside one without the trace; "
        "with --against beside that checkout's",
    )
    parser.add_argument("--busy", action="store_true", help="with work on every core of the host meanwhile")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="print the figures of an earlier run beside: what --json printed"
    )
    options = parser.parse_args()
    if options.low_latency and (why := idle_states.why_not()):
        parser.error(f"--low-latency: the cores cannot be kept awake: {why}; run it as root")
    try:
        before = {} if options.compare is None else earlier(options.compare)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # guests and their files go with it
    with busy(options.busy) as count:
        state = host_state(count)
        table = measured(options, parser)
    table.before = before
    return finish(table, options.json, state)


def measured(options: argparse.Namespace, parser: argparse.ArgumentParser) -> Table:
    """Measure what was asked for."""
    if options.boot and options.quick:
        parser.error("--quick leaves out the boots, --boot all but the boots: give one of them")
    rounds = 2 if options.quick else options.rounds
    scale = 10 if options.quick else 1
    if options.against is not None:
        with checkout(options.against) as (name, tree):
            table = Table(("this", name[:10]))
            if options.in_process:
                in_process.measure((ROOT, tree), rounds, say, table.add, {})
            else:
                measure_against(options.qemu, rounds, scale, (ROOT, tree), table)
        return table
    if options.in_process:
        with trace.without_ring() as tree:
            table = Table(("with trace", "without"))
            in_process.measure_trace((ROOT, tree), rounds, say, table.add)
        return table
    if options.trace:
        with trace.without_ring() as tree:
            table = Table(("with trace", "without"))
            measure_against(options.qemu, rounds, scale, (ROOT, tree), table, ("<= 1.20x", "<= 1.10x"))
        trace.measure_file(rounds, say, table.add)
        trace.measure_explain(say, table.add)
        return table
    if options.hypervisor:
        table = Table(("HVC", "SMC"))
        measure_above_el2(options.qemu, rounds, scale, table)
        above_el2.measure(options.qemu, rounds, say, table.add)
        if not options.quick:
            boots.measure_above_el2(options.qemu, rounds, say, table.add)
        return table
    if options.low_latency:
        table = Table(("awake", "without"))
        measure_low_latency(options.qemu, rounds, scale, table)
        return table
    if options.fixtures:
        table = Table(("saved", "boot"))
        for series in ("6.1", "6.12"):
            fixtures.measure(series, rounds, say, table.add)
        return table
    table = Table()
    if options.load:
        measure_load(options.qemu, rounds, table)
        return table
    if options.migrate:
        migration.measure(options.qemu, 2 if options.quick else 4 * rounds, say, table.add)
        return table
    if options.ras and options.beside is not None:
        table = Table(("ours", "QEMU's"))
        ged.measure(options.beside, rounds, say, table.add)
        return table
    if options.ras:
        ras.measure(options.qemu, rounds, say, table.add)
        print("bench: QEMU's own error injection is not measured: --beside names no QEMU 11.1", file=sys.stderr)
        return table
    if options.terminal:
        terminal.measure(options.qemu, rounds, say, table.add)
        return table
    if options.services:
        services.measure(options.qemu, rounds, say, table.add)
        return table
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        if not options.boot:
            floor = build_floor(directory)
            measure_calls(options.qemu, floor, rounds, scale, table)
            measure_injections(options.qemu, floor, rounds, scale, table)
            say("ACPI tables")
            tables.measure(3 * rounds, table.add)
            say("idle guest")
            table.add("backend of an idle guest: share of a core", "", idle_share(options.qemu, 5), 0, "0")
        for series in () if options.quick else ("6.1", "6.12"):
            boot = boots.times(options.qemu, rounds, series, directory, say)
            table.add(f"{series}: DT boot to shell (plain QEMU)", "s", boot["dt"], boot["plain"], "<= 1.03x")
            table.add(f"{series}: ACPI boot to shell (EDK II)", "s", boot["acpi"], boot["edk2"])
            table.add(f"{series}: ACPI boot to shell (our DT boot)", "s", boot["acpi"], boot["dt"])
        if not (options.quick or options.boot):
            measure_load(options.qemu, rounds, table)
    return table


def finish(table: Table, as_json: bool, state: dict[str, Any]) -> int:
    """Print everything. `state`: of the host, as it was before."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if as_json:
        state |= {"load": os.getloadavg(), "load_before": state["load"]}
        print(json.dumps({"columns": table.names, "rows": table.rows, "before": table.before, **state}, indent=2))
    else:
        table.print()
        load = f"load {state['load'][0]:.1f} before, {os.getloadavg()[0]:.1f} after"
        print(f"\n{state['cores']} cores, {state['busy']} of them kept busy, {load}, {state['sleep']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
