"""`qemu-sdei migrate --to` and `--resume`: the guest goes to another host, or is resumed here after that failed."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qemu_sdei import paths
from qemu_sdei.cli.output import Progress, print_json, say
from qemu_sdei.cli.receive_command import add_tls
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.migration.options import MigrationOptions
    from qemu_sdei.migration.remote_address import Address
    from qemu_sdei.rundir import Running

_PATIENCE = 660.0
"""Seconds without a word: to compare RAM by hashes is one step, and the slower host says when it is done."""
_MAX_TOKEN = 4096


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what concerns another host."""
    group = parser.add_argument_group("to another host, where `qemu-sdei receive` waits")
    group.add_argument(
        "--to",
        metavar="WHERE",
        help="move to another host: ssh://[USER@]HOST[:PORT][/NAME] (receive is started there if needed), "
        "tls://HOST:PORT, tcp://127.0.0.1:PORT, or unix:PATH",
    )
    group.add_argument(
        "--remote-command",
        default=None,
        metavar="CMD",
        help="with ssh: the command on the other host (default: qemu-sdei)",
    )
    group.add_argument(
        "--token",
        metavar="T",
        help="with tcp: the token that `receive` printed, or @FILE to read it from a file, so that other "
        "users cannot see it",
    )
    add_tls(group)
    group.add_argument(
        "--resume",
        action="store_true",
        help="resume the guest here, after a migration whose result is unknown. First make sure that the "
        "guest does not run on the other host",
    )


def check(args: argparse.Namespace) -> None:
    """Raise `UsageError` when options contradict each other."""
    if args.to is None:
        for option in ("remote_command", "token", "tls_cert", "tls_key", "tls_ca"):
            if getattr(args, option) is not None:
                raise UsageError(f"--{option.replace('_', '-')} is for --to")
    elif args.postcopy or args.route not in (None, "copy", "live"):
        raise UsageError("to another host a guest goes by --route live (the default) or copy")
    elif args.to_file is not None:
        raise UsageError("--to and --to-file were both given: give one of them")
    elif args.transport != "unix":
        raise UsageError("--transport is between QEMUs of one host: --to says how another one is reached")
    elif args.resume:
        raise UsageError("--to and --resume were both given: give one of them")
    if args.resume and args.destination is not None:
        raise UsageError("--resume resumes SRC on this host: leave DEST out")
    if args.to is not None and args.destination is not None:
        raise UsageError("DEST is a name on this host: to another one, give it as ssh://HOST/NAME, or to `receive`")


def run(args: argparse.Namespace, guest: Running, options: MigrationOptions, report: Any, progress: Progress) -> int:
    """Do it. `report` is told of progress."""
    from qemu_sdei.guest.supervisor_client import ask

    if args.resume:
        ask(guest.owner, "resume", {}, report, identity=guest.identity)
        if not args.quiet:
            say(f"guest {guest.name!r} goes on here")
        return 0
    if args.to.startswith("ssh:"):
        progress("connecting to the other host")
    with _way(args, guest.name) as address:
        result = ask(
            guest.owner,
            "migrate-to",
            {"to": address.to_json(), "options": options.to_json()},
            report,
            identity=guest.identity,
            patience=_PATIENCE + args.timeout + options.timeout,
        )
    progress.done()
    if args.json:
        print_json(result)
    elif not args.quiet:
        _print(result)
    return 0


@contextlib.contextmanager
def _way(args: argparse.Namespace, name: str) -> Iterator[Address]:
    from qemu_sdei.migration.remote_address import Tls, parse
    from qemu_sdei.migration.remote_ssh import REMOTE_COMMAND, SCHEME, Tunnel

    tls = Tls.of(args.tls_cert, args.tls_key, args.tls_ca)
    if not args.to.startswith(SCHEME):
        if args.remote_command is not None:
            raise UsageError("--remote-command is for --to ssh://")
        yield parse(args.to, token=_token(args.token), tls=tls)
        return
    if tls is not None or args.token is not None:
        raise UsageError("ssh:// needs neither --token nor --tls-cert, --tls-key and --tls-ca: ssh knows who is there")
    with Tunnel(args.to, name, remote_command=args.remote_command or REMOTE_COMMAND) as address:
        yield address


def _token(text: str | None) -> str:
    if text is None or not text.startswith("@"):
        return text or ""
    try:
        with paths.expand(text[1:]).open() as file:
            return file.read(_MAX_TOKEN).strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"token file {text[1:]} cannot be read: {getattr(error, 'strerror', error)}") from None


def downtime(result: dict[str, Any]) -> str:
    """How long the guest stood still, by whom, in words."""
    shown = result["guest_downtime_ms"]
    guest = "unknown as the guest shows, it gave no sign" if shown is None else f"{shown:.0f} ms as the guest shows"
    return f"downtime: {guest}, {result['pause_ms']:.0f} ms as seen from here, {result['qemu_downtime_ms']} ms by QEMU"


def _print(result: dict[str, Any]) -> None:
    pages = result["pages_differing"]
    found = "not compared" if pages is None else f"compared: {pages} pages had not arrived, and were repaired"
    lines = [
        f"guest {result['source']!r} is at {result['host']} as {result['destination']!r} now",
        f"  in all {result['total_ms']:.0f} ms by this host's clock",
        f"  {downtime(result)}",
        f"  QEMU sent {result['transferred'] / 1024:.0f} KiB; files beside: {result['files_sent'] / 1024:.0f} KiB",
        f"  RAM was {found if pages != 0 else 'compared: all of it had arrived'}",
    ]
    say(*lines)
