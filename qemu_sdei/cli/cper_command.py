"""`qemu-sdei cper`: error records from anywhere, read, judged and written in another form."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.files import add_output, read_file, write_output
from qemu_sdei.cli.output import add_verbosity, print_data, print_json, say
from qemu_sdei.errors import CperError, UsageError

if TYPE_CHECKING:
    from qemu_sdei.ras.block import Block
    from qemu_sdei.ras.kinds import Kinds
    from qemu_sdei.ras.record import Record

_FILE: Final = (
    "records or status blocks: bytes (an ERST's, a BERT's region, a BMC's log), hexadecimal, base64, or libcper's "
    "JSON; - is standard input"
)
_ROW: Final = 32


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "cper",
        description="Read error records (UEFI 2.10 appendix N, ACPI 6.5 18.3.2.7.1): from a BMC's log, an ERST, a "
        "BERT or QEMU's error injection.",
    )
    commands = parser.add_subparsers(dest="cper_command", metavar="COMMAND", required=True, prog=parser.prog)
    decode: argparse.ArgumentParser = commands.add_parser(
        "decode",
        help="print error records field by field, or in another form",
        description="Print error records field by field, with the names of values. A field that is not marked valid "
        "is printed only if it is not 0.",
    )
    decode.add_argument("file", metavar="FILE", help=_FILE)
    form = decode.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as libcper's JSON; of several records a list")
    form.add_argument("--hex", action="store_true", help="print hexadecimal digits")
    form.add_argument(
        "--base64",
        action="store_true",
        help="print base64, one line each; with --as block as QEMU's inject-ghes-v2-error takes it",
    )
    form.add_argument("--binary", action="store_true", help="write bytes")
    decode.add_argument(
        "--as",
        dest="wanted",
        choices=("record", "block"),
        help="convert: records into status blocks (block), or status blocks into records (record)",
    )
    add_output(decode, "file to write (default: standard output)")
    check: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="say what is wrong with error records",
        description="Check error records: lengths, counts, values without a meaning, reserved bits. Exit code 1 if a "
        "reader may refuse a record, else 0.",
    )
    check.add_argument("file", metavar="FILE", help=_FILE)
    for each in (decode, check):
        each.add_argument(
            "--sections",
            action="append",
            default=[],
            metavar="FILE",
            help="TOML file that describes a vendor's section; may be repeated",
        )
    decode.set_defaults(run=_decode)
    check.set_defaults(run=_check)
    add_verbosity(decode)
    add_verbosity(check, json_output=True)


def _kinds(paths: list[str]) -> Kinds:
    from qemu_sdei.ras.described import described
    from qemu_sdei.ras.kinds import with_kinds

    return with_kinds(described(read_file(path, "section description"), path) for path in paths)


def _read(args: argparse.Namespace) -> list[Record | Block]:
    """The records in the file. Raises `UsageError`."""
    from qemu_sdei.ras.inputs import records

    kinds = _kinds(args.sections)
    name = "standard input" if args.file == "-" else args.file
    try:
        return records(read_file(args.file, "error records"), kinds)
    except CperError as error:
        raise UsageError(f"{name}: {error}") from None


def _decode(args: argparse.Namespace) -> int:
    from qemu_sdei.ras.conversion import as_block, as_record

    found = _read(args)
    if args.wanted is not None:
        change = as_block if args.wanted == "block" else as_record
        found = [change(each) for each in found]
    if args.output is None and args.json:
        print_json(_document(found))
        return 0
    data, binary = _form(args, found)
    if args.output is None and not binary:
        print_data(data.decode())
    else:
        write_output(data, args.output, force=args.force, binary=binary, what="an error record")
    return 0


def _document(found: list[Record | Block]) -> Any:
    from qemu_sdei.ras.libcper import to_json

    documents = [to_json(each) for each in found]
    return documents[0] if len(documents) == 1 else documents


def _form(args: argparse.Namespace, found: list[Record | Block]) -> tuple[bytes, bool]:
    """What is to be written, and whether it is no text."""
    import base64
    import json

    from qemu_sdei.ras.printed import printed

    packed = [each.pack() for each in found]
    if args.binary:
        return b"".join(packed), True
    if args.json:
        text = json.dumps(_document(found), indent=2) + "\n"
    elif args.base64:
        text = "".join(base64.b64encode(each).decode() + "\n" for each in packed)
    elif args.hex:
        whole = b"".join(packed)
        text = "".join(whole[at : at + _ROW].hex() + "\n" for at in range(0, len(whole), _ROW))
    else:
        text = "\n".join(map(printed, found))
    return text.encode(), False


def _check(args: argparse.Namespace) -> int:
    from qemu_sdei.ras.checks import Level, check

    found = _read(args)
    faults = [(number, fault) for number, each in enumerate(found) for fault in check(each)]
    errors = sum(fault.level is Level.ERROR for _, fault in faults)
    if args.json:
        rows = [
            {"record": number, "level": fault.level.value, "field": fault.field, "message": fault.message}
            for number, fault in faults
        ]
        print_json({"records": len(found), "faults": rows})
    else:
        for number, fault in faults:
            say(f"record {number}: {fault}" if len(found) > 1 else str(fault))
        if not faults:
            say(f"{len(found)} record{'s' if len(found) != 1 else ''}: nothing is wrong")
    return 1 if errors else 0
