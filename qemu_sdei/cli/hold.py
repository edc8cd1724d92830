"""`--hold` and what belongs to it, for the commands that pause a guest at a hold point."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.migration.options import Hold

_EVENT = "software"
_VCPU = 0


def add_hold(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the options; `verb` is what is done at the hold point."""
    parser.add_argument(
        "--hold",
        metavar="STATE",
        help=f"{verb} when the event is in this state: registered, enabled, pending-masked, pending-disabled, running, "
        "running-pending, unregister-pending, nested; or the vCPU: resume, off, exchange",
    )
    parser.add_argument("--event", default=_EVENT, metavar="E", help="event of --hold (default: software)")
    parser.add_argument("--vcpu", type=int, default=_VCPU, metavar="N", help="vCPU of --hold (default: 0)")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="wait for --hold at most S seconds")


def hold_of(args: argparse.Namespace, guest: Any) -> Hold | None:
    """The hold point that was asked for, `guest` being the running one. Raises `UsageError`."""
    from qemu_sdei.backend.loop.hold_points import OF_VCPU
    from qemu_sdei.guest import event_targets
    from qemu_sdei.guest.control_client import ControlClient
    from qemu_sdei.migration.options import Hold

    if not 0 < args.timeout < math.inf:
        raise UsageError("--timeout must be more than 0 seconds")
    if args.hold is None:
        if args.event != _EVENT or args.vcpu != _VCPU:
            raise UsageError("--event and --vcpu need --hold STATE: leave them out, or add it")
        return None
    if args.hold in OF_VCPU and args.event == _EVENT:
        return Hold(args.hold, vcpu=args.vcpu, timeout=args.timeout)
    with ControlClient(guest.control, identity=guest.identity) as client:
        event = event_targets.number(client, args.event)
    return Hold(args.hold, event, args.vcpu, args.timeout)
