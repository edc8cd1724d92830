"""`qemu-sdei vmcore`: what a crash dump says, from `run --kdump` or from anywhere."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from qemu_sdei.vmcore.dump import Crash, Dump, Registers

_MIB: Final = 1 << 20
_LAST: Final = 20
_CLOCK_SET: Final = 365 * 86400
"""Seconds: a clock that nobody has set began at 0."""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "vmcore",
        description="Show what is in a crash dump of an arm64 kernel (an ELF vmcore, from `run --kdump` or "
        "elsewhere): the kernel, the CPU and process that panicked, the registers of each CPU, and the "
        "end of the kernel log. It needs no debug information.",
    )
    parser.add_argument("file", metavar="FILE", help="the vmcore")
    parser.add_argument("--log", action="store_true", help="print the whole kernel log, and nothing else")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with the whole log")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.vmcore.dump import Dump

    dump = Dump.read(args.file)
    if args.json:
        print_json(_document(dump))
    elif args.log:
        say(*(line for record in dump.log for line in record.lines()))
    else:
        _print(dump)
    return 0


def _print(dump: Dump) -> None:
    say(f"Linux {dump.release}, {dump.memory // _MIB} MiB of memory, {dump.stored // _MIB} MiB of the file on disk")
    if (when := _time(dump)) is not None:
        say(f"crashed: {when} (UTC, by the guest's clock)")
    crash = dump.crash
    if crash is None:
        say("panic: the kernel log has none")
    else:
        say(f"panic: {crash.message}")
        if crash.cpu is not None:
            say(f"by: vCPU {crash.cpu}, PID {crash.pid}, {crash.comm}")
    say("")
    crashed = dump.crashed
    rows = [_row(number, one, "*" if one is crashed else "") for number, one in enumerate(dump.cpus)]
    print_table("registers of the vCPUs that have saved them (*: it panicked)", ("", "nth", "PID", "PC", "SP"), rows)
    lines = [line for record in dump.log for line in record.lines()]
    say(f"kernel log, the last {min(_LAST, len(lines))} of {len(lines)} lines:", *lines[-_LAST:])


def _row(number: int, one: Registers, mark: str) -> tuple[object, ...]:
    return (mark, number, one.pid, f"{one.pc:016x}", f"{one.sp:016x}")


def _time(dump: Dump) -> str | None:
    import datetime

    if dump.crash_time is None or dump.crash_time < _CLOCK_SET:
        return None
    try:
        when = datetime.datetime.fromtimestamp(dump.crash_time, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return when.strftime("%Y-%m-%d %H:%M:%S")


def crash_json(crash: Crash | None) -> dict[str, Any] | None:
    """Who panicked, as JSON."""
    if crash is None:
        return None
    return {"message": crash.message, "vcpu": crash.cpu, "pid": crash.pid, "comm": crash.comm}


def _document(dump: Dump) -> dict[str, Any]:
    return {
        "release": dump.release,
        "build_id": dump.build_id,
        "crash_time": dump.crash_time,
        "memory": dump.memory,
        "stored": dump.stored,
        "crash": crash_json(dump.crash),
        "cpus": [
            {
                "pid": one.pid,
                "pc": one.pc,
                "sp": one.sp,
                "pstate": one.pstate,
                "x": list(one.x),
                "crashed": one is dump.crashed,
            }
            for one in dump.cpus
        ],
        "log": [{"ns": record.nanoseconds, "text": record.text} for record in dump.log],
    }
