"""`qemu-sdei receive`: wait for a guest that another host sends, and give its console to the user."""

from __future__ import annotations

import argparse
import math
import os
from typing import TYPE_CHECKING, Any

from qemu_sdei import jsonline
from qemu_sdei.cli.interact import concluded, interact
from qemu_sdei.cli.output import Progress, add_verbosity, say
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest

_LONG = 1e6


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "receive",
        description="Wait for the guest that `qemu-sdei migrate GUEST --to ...` sends here, and connect the terminal "
        "to its console. Without --listen only you can send a guest: with --to ssh://THIS-HOST/NAME, or "
        "--to unix:PATH.",
    )
    parser.add_argument("--name", help="name of the guest here (default: guest, guest-2, ...)")
    where = parser.add_argument_group("where to listen")
    where.add_argument(
        "--unix", metavar="PATH", help="wait at this unix socket (default: receive.sock in the run directory)"
    )
    where.add_argument(
        "--listen",
        metavar="ADDR:PORT",
        help="wait at this TCP address: on loopback with a token, which is printed; any other address needs TLS",
    )
    add_tls(where)
    where.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="WHAT",
        help="with --listen, let the guest use this: a file or directory (disks, shares, services), net, or "
        "qemu-args (options for QEMU, which can do everything that you can). May be repeated",
    )
    host = parser.add_argument_group("this host")
    host.add_argument("--qemu", metavar="FILE", help="qemu-system-aarch64 to use (default: the one on PATH)")
    host.add_argument(
        "--memory-path", metavar="DIR", help="keep guest RAM in an unnamed file in DIR (default: in memory)"
    )
    host.add_argument("--timeout", type=float, metavar="S", help="wait at most S seconds for a guest (default: 3600)")
    host.add_argument(
        "-d",
        "--detach",
        action="store_true",
        help="use no console, and print lines of JSON. Before a guest has arrived, end when standard input "
        "ends; afterwards run on. If NAME already waits, only print where",
    )
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def add_tls(group: Any) -> None:
    """Add the three files of TLS."""
    group.add_argument("--tls-cert", metavar="FILE", help="certificate of this host, PEM")
    group.add_argument("--tls-key", metavar="FILE", help="key of the certificate, PEM, without a password")
    group.add_argument(
        "--tls-ca", metavar="FILE", help="CA certificate that has signed the other host's certificate, PEM"
    )


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    from qemu_sdei.guest.guest import Guest
    from qemu_sdei.guest.receive import WAIT
    from qemu_sdei.migration.remote_address import Tls

    if args.timeout is not None and not 0 < args.timeout < math.inf:
        raise UsageError("--timeout must be more than 0 seconds")
    if args.detach and args.listen is None and args.unix is None and args.name is not None and _waits(args.name):
        return 0
    with Progress(args.quiet) as progress:
        guest = Guest.receive(
            name=args.name,
            listen=args.listen,
            tls=Tls.of(args.tls_cert, args.tls_key, args.tls_ca),
            unix=args.unix,
            allow=tuple(args.allow),
            qemu=args.qemu,
            memory_path=args.memory_path,
            timeout=WAIT if args.timeout is None else args.timeout,
            event=_as_json if args.json or args.detach else lambda state, about: _tell(args, progress, state, about),
            progress=progress,
        )
        return concluded(guest, lambda: _detached(guest) if args.detach else interact(guest, args, progress))


def _as_json(state: str, about: dict[str, Any]) -> None:
    # Who started this may have gone.
    try:
        os.write(1, jsonline.encode({"state": state, **about}))
    except OSError:
        pass


def _tell(args: argparse.Namespace, progress: Progress, state: str, about: dict[str, Any]) -> None:
    if state == "waiting":
        progress.done()
        to = about.get("listen") or f"ssh://THIS-HOST/{about['name']}"
        more = f" --token {about['token']}" if "token" in about else ""
        more += " --tls-cert FILE --tls-key FILE --tls-ca FILE" if to.startswith("tls") else ""
        say(f"qemu-sdei: waiting for a guest, as {about['name']!r}. At its host:", error=True)
        say(f"  qemu-sdei migrate GUEST --to {to}{more}", error=True)
        if "socket" in about:
            say(f"  or, on this host: --to unix:{about['socket']}", error=True)
    elif state == "arriving":
        progress(f"guest {about['what']!r} is arriving")
    elif state == "failed":
        progress.done()
        say(f"qemu-sdei: it did not arrive: {about['what']}; waiting again", error=True)


def _waits(name: str) -> bool:
    """If somebody waits for a guest of that name already, say where; return when standard input ends."""
    from qemu_sdei import rundir
    from qemu_sdei.guest.receive import SOCKET

    there = [guest.path / SOCKET for guest in rundir.running() if guest.name == name]
    if not there or not there[0].is_socket():
        return False
    _as_json("waiting", {"name": name, "socket": str(there[0])})
    while os.read(0, 4096):
        pass
    return True


def _detached(guest: Guest) -> int:
    """Wait for the guest, and for its end, whoever started this."""
    import signal
    import threading

    main = threading.main_thread().ident
    assert main is not None

    def watch() -> None:
        while True:
            try:
                if os.read(0, 4096):
                    continue
            except OSError:
                pass
            if not guest.here:
                # A signal for just that thread: it waits in a lock, which nothing else breaks off.
                signal.pthread_kill(main, signal.SIGTERM)
            return

    threading.Thread(target=watch, daemon=True).start()
    guest.start()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    guest.wait_off(_LONG)
    return 0
