"""`qemu-sdei ras inject`: report hardware errors to a running guest, and check what its kernel makes of them."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.output import add_verbosity, say
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.cli.ras_words import Said
    from qemu_sdei.ras.kinds import Kinds

PROG: Final = "qemu-sdei ras inject"
MAX_COUNT: Final = 1_000_000
_DAY: Final = 86400


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "inject",
        help="report an error to a guest",
        description="Report a hardware error to a running guest, wait until its kernel has read and acknowledged it, "
        "and check how the kernel reacted. `qemu-sdei ras inject NAME KIND --help` shows the fields of a "
        "section.",
        epilog="KIND is memory, memory2, arm, arm-ras, processor, pcie, firmware, cxl-protocol, cxl-general-media, "
        "cxl-dram, cxl-memory-module, cxl-physical-switch, cxl-virtual-switch, cxl-mld-port, one of a --sections file, "
        "or any GUID (--data HEX).",
    )
    parser.add_argument("name", metavar="NAME", help="the guest (see `qemu-sdei list`), or a directory of qemu-args")
    parser.add_argument(
        "words", metavar="KIND ...", nargs=argparse.REMAINDER, help="sections with their fields, + between them"
    )
    add_general(parser)
    add_verbosity(parser, messages=True)
    parser.set_defaults(run=run)


def add_general(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Add the options that go for all sections; returns them."""
    found: list[argparse.Action] = []

    def group(title: str) -> Any:
        made = parser.add_argument_group(title)

        def add(*names: str, **more: Any) -> None:
            # Not set where it is not given: what was given in front of the sections stays.
            found.append(made.add_argument(*names, default=argparse.SUPPRESS, **more))

        return add

    add = group("the error")
    add("--severity", metavar="S", help="corrected (the default), recoverable, fatal or informational; of a section")
    add("--address", metavar="A", help="physical address of the error, in each section that has one")
    add(
        "--pid",
        metavar="P",
        help="the error is in a page of process P of the guest; victim: start a process for it",
    )
    add(
        "--virtual",
        metavar="A",
        help="with --pid: virtual address of the error (default: a page that P is about to touch)",
    )
    add("--fru-id", metavar="GUID", help="GUID of the field-replaceable unit")
    add("--fru-text", metavar="TEXT", help="name of the field-replaceable unit, up to 20 characters")
    add("--timestamp", metavar="T", help="time of the error, such as 2026-11-30T12:00:00+00:00")
    add("--entry-flags", metavar="F", help="flags of the data entry, a number")
    add("--entry-revision", metavar="R", help="revision of the data entry, such as 0x201 (default: 0x300)")
    add(
        "--block-severity",
        metavar="S",
        help="severity of the whole block (default: the worst severity of its sections)",
    )
    add("--raw-data", metavar="HEX", help="raw data after the entries, as hexadecimal digits")
    add(
        "--sections",
        metavar="FILE",
        action="append",
        help="TOML file that describes a vendor's section",
    )
    add(
        "--malform",
        metavar="EDIT",
        action="append",
        help="make the record wrong: FIELD=VALUE, overflow, truncate, ...",
    )
    add = group("records from elsewhere, in place of sections")
    add("--record", metavar="FILE", help="read one record as libcper's JSON; - is standard input")
    add("--base64", metavar="TEXT", help="a status block as QEMU's inject-ghes-v2-error takes it, or @FILE")
    add(
        "--replay",
        metavar="LOG",
        help="report all records of a file (bytes, hexadecimal, base64 or JSON), one after the other",
    )
    add = group("how it is reported")
    add("--source", metavar="S", help="error source (default: the first that is ready; see `ras sources`)")
    add("--vcpu", metavar="N", help="vCPU that takes the notification (default: as the event is routed)")
    add("--count", metavar="C", help="how many times; each at the next page, because Linux drops repeated errors")
    add("--rate", metavar="R", help="at most R a second (default: as fast as the guest handles them)")
    add("--random", metavar="SEED", help="put each error at a random page of RAM; the same seed gives the same pages")
    add(
        "--next-boot",
        action="store_true",
        help="do not tell the running kernel; put the error into the BERT of the next boot",
    )
    add("--no-wait", action="store_true", help="do not wait until the guest has handled the error")
    add("--force", action="store_true", help="report even a wrong error, and overwrite a report that was not read")
    add("--dry-run", action="store_true", help="print the record and its bytes, and report nothing")
    add("--json", action="store_true", help="print one JSON object, for programs")
    add("--json-output", action="store_true", help="old name of --json")
    add = group("what is expected (exit code 1 if it does not come)")
    add("--expect-log", metavar="RE", action="append", help="a line of the kernel's log")
    add(
        "--expect-trace",
        metavar="EVENT:F=V",
        action="append",
        help="a trace event of the kernel, and a field",
    )
    add(
        "--expect-sigbus",
        metavar="P:CODE",
        action="append",
        help="a SIGBUS (4: at a touch, 5: early)",
    )
    add("--expect-panic", metavar="RE", nargs="?", const="", help="the kernel panics, and prints RE")
    add(
        "--expect-offline",
        metavar="PFN",
        nargs="?",
        const="",
        help="page taken out of use (default: the error's)",
    )
    add("--timeout", metavar="S", help="seconds to wait for each step (default: 10)")
    return found


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    try:
        said = _said(args)
    except SystemExit as end:  # help was printed
        return end.code if isinstance(end.code, int) else 2
    from qemu_sdei.cli import ras_making, ras_reporting

    kinds = _kinds(args)
    made = ras_making.blocks(said, kinds)
    asks = any(getattr(args, name, None) is not None for name in ("pid", "random"))
    if getattr(args, "dry_run", False) and not asks:
        # Nothing of the guest is needed.
        everything = ras_making.varied(made, args, kinds, address=getattr(args, "address", None), ram=None)
        ras_reporting.show(everything, json_output=getattr(args, "json", False))
        return 0
    if getattr(args, "next_boot", False):
        return ras_reporting.keep(args, made, kinds)
    return ras_reporting.report(args, made, kinds)


def _kinds(args: argparse.Namespace) -> Kinds:
    from qemu_sdei.cli.files import read_file
    from qemu_sdei.ras.described import described
    from qemu_sdei.ras.kinds import with_kinds

    paths = getattr(args, "sections", [])
    return with_kinds(described(read_file(path, "section description"), path) for path in paths)


def _said(args: argparse.Namespace) -> Said:
    from qemu_sdei.cli.ras_words import parse

    kinds = _kinds(args)
    said = parse(_today(args.words), args, kinds, PROG, add_general)
    if getattr(args, "json_output", False):
        _warn("--json-output", "--json")
        args.json = True
    limits = {"count": (1, MAX_COUNT), "vcpu": (0, 1 << 16), "rate": (0, math.inf), "timeout": (0, _DAY)}
    for name, (least, most) in limits.items():
        value = getattr(args, name, None)
        if value is not None:
            setattr(args, name, _number(name, value, least, most, whole=name in ("count", "vcpu")))
    for name in ("address", "virtual", "random"):
        value = getattr(args, name, None)
        if value is not None:
            setattr(args, name, _number(name, value, 0, 1 << 64, whole=True))
    return said


def _today(words: list[str]) -> list[str]:
    """Words without the former meaning of `--json`, which read a record and is `--record` now. To go with the next
    release, and `--json-output` with it.
    """
    found: list[str] = []
    for word in words:
        old = word.startswith("--json=") or (found[-1:] == ["--json"] and (word == "-" or "." in word or "/" in word))
        if not old:
            found.append(word)
            continue
        _warn("--json FILE", "--record FILE")
        if found[-1:] == ["--json"]:
            found.pop()
        found += ["--record", word.removeprefix("--json=")]
    return found


def _warn(former: str, today: str) -> None:
    say(f"qemu-sdei: warning: {former} is {today} now; the former word goes with the next release", error=True)


def _number(name: str, text: str, least: float, most: float, *, whole: bool) -> float | int:
    try:
        value: float | int = int(text, 0) if whole else float(text)
    except ValueError:
        raise UsageError(f"--{name} {text[:60]!r} is not a number") from None
    if not least <= value <= most or (not whole and value <= 0):
        raise UsageError(f"--{name} {text[:60]} is not possible: give {least if whole else 'more than 0'} to {most:g}")
    return value
