"""`qemu-sdei tables`: ACPI tables for firmware builds; `check`, `show` and `diff` look at tables from anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.files import add_output
from qemu_sdei.cli.output import add_verbosity, say
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.acpi.formats.acpidump import Entry
    from qemu_sdei.cli.tables_options import Asked

_SIGNATURES: Final = {
    "sdei": b"SDEI", "hest": b"HEST", "agdi": b"AGDI", "bert": b"BERT", "ssdt": b"SSDT", "fadt": b"FACP",
}  # fmt: skip
TABLES: Final = tuple(_SIGNATURES)
FORMATS: Final = ("aml", "dsl", "acpidump", "c", "hex", "edk2", "cpio")


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "tables",
        usage="%(prog)s [options] | %(prog)s check|show|diff FILE ...",
        description="Make the ACPI tables that announce the firmware: SDEI, HEST (--ghes), AGDI (--agdi), BERT "
        "(--bert), an SSDT (--osc) and a FADT with its PSCI flags set (--fadt). With --machine, or "
        "options of a machine, make all tables of that QEMU machine with ours among them, as `qemu-sdei "
        "run --acpi` gives them to a guest (a BERT only with --bert). Without --format and -o, show them.",
    )
    parser.add_argument(
        "--table",
        action="append",
        choices=(*TABLES, "all"),
        help="sdei, hest, agdi, bert, ssdt, fadt or all; may be repeated (default: all)",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="aml (binary, the default), dsl (source for iasl), acpidump (text), c, hex, edk2 (sources of a "
        "module), cpio (Linux reads the tables from it in front of an initrd)",
    )
    add_output(parser, "file to write, or a directory (DIR/) for one file per table (default: standard output)")
    _add_content(parser)
    _add_machine(parser)
    add_verbosity(parser, json_output=True)
    parser.set_defaults(run=run)
    from qemu_sdei.cli import tables_inspect

    tables_inspect.register(parser)


def _add_content(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what the tables say")
    group.add_argument(
        "--ghes",
        action="append",
        default=[],
        metavar="SOURCE[@ADDRESS]",
        help="an error source of the HEST: the name of a source in the events file, or an SDEI event; "
        "ADDRESS is its error status address register, 8 bytes, followed by the read-ack register. May be "
        "repeated. More after commas: ack=ADDRESS or ack=none (GHES version 1), size=BYTES of the status block "
        "(default: 4096)",
    )
    group.add_argument("--agdi", metavar="EVENT", help="make an AGDI that SDEI event EVENT signals")
    group.add_argument(
        "--agdi-interrupt",
        metavar="N",
        help="make an AGDI that the interrupt with GSIV N signals; with --agdi, both do",
    )
    group.add_argument(
        "--bert",
        metavar="ADDRESS",
        help="make a BERT: ADDRESS holds errors of the boot before, as generic error status blocks one after "
        "the other. After a comma: size=BYTES of the region (default: 4096)",
    )
    group.add_argument(
        "--osc",
        action="store_true",
        help="add an SSDT with \\_SB._OSC, which announces firmware first for hardware errors (not for a "
        "machine whose DSDT has that method)",
    )
    group.add_argument("--method", choices=("smc", "hvc"), default="smc", help="the FADT's PSCI conduit (default: smc)")
    group.add_argument("--fadt", metavar="FILE", help="FADT in which to set PSCI (a binary, or a dump that has one)")
    group.add_argument("--events", metavar="FILE", help="machine description (TOML): SDEI events and error sources")
    group.add_argument("--oem-id", metavar="ID", help="OEM id of our tables, up to 6 characters")
    group.add_argument("--oem-table-id", metavar="ID", help="OEM table id of our tables, up to 8 characters")
    group.add_argument("--oem-revision", metavar="N", help="OEM revision of our tables (default: 1)")


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--machine", action="store_true", help="make all tables of the QEMU machine that `run` would start"
    )
    group.add_argument(
        "--smp", metavar="N[,T]", help="number of vCPUs, and their topology: 6,sockets=2,cores=3 (default: 2)"
    )
    group.add_argument("--memory", "-m", metavar="M", help="RAM, with M or G (default: 1G)")
    group.add_argument("--cpu", metavar="C", help="QEMU's CPU model (default: cortex-a72)")
    group.add_argument("--virtualization", action="store_true", help="give the guest EL2 for its own use")
    group.add_argument("--qemu", metavar="FILE", help="qemu-system-aarch64 to use (default: the one on PATH)")
    group.add_argument(
        "--qemu-arg",
        action="append",
        default=[],
        metavar="ARG",
        help="words to add to QEMU's command line, such as a device",
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.acpi import AcpiError
    from qemu_sdei.cli import tables_inspect, tables_options, tables_write
    from qemu_sdei.tables import table_set

    shown = args.format is None and args.output is None
    if args.json and not shown:
        raise UsageError("--json is for tables that are shown: leave out --format and -o")
    asked = tables_options.asked(args)
    try:
        if asked.machine is None:
            entries = table_set.own(asked.content)
        else:
            entries = table_set.of_machine(asked.machine, asked.content)
            if asked.content.method == "hvc" and not args.quiet:
                say("qemu-sdei: the FADT says HVC, but `qemu-sdei run` gives this machine SMC only", error=True)
        entries = _chosen(entries, asked.tables)
        if shown:
            return tables_inspect.show_entries([(None, entries)], as_json=args.json)
        form = args.format or "aml"
        if form == "cpio":
            entries = _for_override(entries, asked, args.quiet)
        tables_write.write(entries, form, args.output, force=args.force, quiet=args.quiet)
    except AcpiError as error:
        raise UsageError(str(error)) from None
    return 0


def _chosen(entries: list[Entry], tables: Sequence[str]) -> list[Entry]:
    signatures = {_SIGNATURES[name] for name in tables}
    return [entry for entry in entries if not tables or entry.data[:4] in signatures]


def _for_override(entries: list[Entry], asked: Asked, quiet: bool) -> list[Entry]:
    """Those that an initrd is to carry: what the machine's own firmware does not have, and the FADT as a newer one."""
    from qemu_sdei.acpi.formats import override, signature
    from qemu_sdei.acpi.formats.acpidump import Entry

    if asked.machine is not None and "fadt" in asked.tables:
        raise UsageError(
            "QEMU's FADT points to a DSDT that the guest's firmware has put elsewhere: "
            "give the guest's own (its /sys/firmware/acpi/tables/FACP) with --fadt FILE"
        )
    if not asked.tables:
        entries = entries if asked.machine is None else [entry for entry in entries if entry.data[:4] != b"FACP"]
        ours = [entry for entry in entries if entry.data[:4] in _SIGNATURES.values()]
        entries = [entry for entry in ours if signature(entry.data) in override.SIGNATURES]
        left = ", ".join(signature(entry.data) for entry in ours if entry not in entries)
        if left and not quiet:
            say(
                f"qemu-sdei: left out: {left} (Linux takes none from an initrd: the firmware must have it)",
                error=True,
            )
    if not entries:
        raise UsageError("no table is left for an initrd: give --ghes, --agdi, --bert, --osc or --fadt")
    return [
        Entry(override.newer(entry.data, int.from_bytes(entry.data[24:28], "little") + 1))
        if entry.data[:4] == b"FACP"
        else entry
        for entry in entries
    ]
