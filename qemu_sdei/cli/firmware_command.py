"""`qemu-sdei firmware`: what a guest's firmware does wrong on purpose, and a change of it; which profiles there are."""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import TYPE_CHECKING, Any, Final

from qemu_sdei.cli.guest_name import add_guest
from qemu_sdei.cli.output import add_verbosity, print_json, print_table, say
from qemu_sdei.cli.symbol_options import add_symbol_options, sources_of
from qemu_sdei.errors import UsageError

if TYPE_CHECKING:
    from qemu_sdei.profiles.firmware_profile import FirmwareProfile

_WIDTH: Final = 80
_PLACES: Final = re.compile("@[0-9a-fx.~]+")
"""Behind a function's name: where it is. --json has them."""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "firmware",
        description="Without an option: show the firmware profile of a running guest, how often each rule acted, and "
        "which vCPUs a rule has made deaf or stuck. --profile, --clear and --set, in this order, change "
        "the profile at once; a vCPU that is deaf or stuck stays so until it is powered off or the "
        "machine is reset. docs/reference/firmware-profiles.md describes rules. --list and --show need "
        "no guest.",
    )
    add_guest(parser, "name", directory=True)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="RULE",
        help='add a rule, such as "CPU_OFF nth=1 handler=yes returns=DENIED"; may be repeated',
    )
    parser.add_argument("--clear", action="store_true", help="remove all rules")
    parser.add_argument("--profile", metavar="P", help="use this profile: a name of --list, or a file (.toml)")
    parser.add_argument("--list", action="store_true", help="list the built-in profiles")
    parser.add_argument("--show", metavar="P", help="check profile P, and show its rules and what it reproduces")
    add_symbol_options(parser)
    add_verbosity(parser, json_output=True, messages=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the subcommand."""
    changes = bool(args.set or args.clear or args.profile)
    if (args.list or args.show is not None) and (changes or args.name is not None or (args.list and args.show)):
        raise UsageError("--list and --show need no guest, change nothing, and stand alone")
    if args.clear and args.profile is not None:
        raise UsageError("--profile replaces all rules already: leave out --clear")
    from qemu_sdei.profiles import firmware_profile
    from qemu_sdei.profiles.rule import Rule

    if args.list:
        _list([firmware_profile.load(name) for name in firmware_profile.names()], args.json)
        return 0
    if args.show is not None:
        _show(firmware_profile.load(args.show), args.json)
        return 0
    profile = None if args.profile is None else firmware_profile.load(args.profile)
    rules = []
    for text in args.set:  # what is wrong with it is known without a guest
        try:
            rules.append(Rule.of_text(text))
        except UsageError as error:
            raise UsageError(f"--set {text!r}: {error}") from None
    from qemu_sdei import rundir
    from qemu_sdei.guest.control_client import ControlClient

    guest = rundir.find(args.name)
    if any(rule.unplaced for rule in (*rules, *(() if profile is None else profile.rules))):
        from qemu_sdei.symbols import call_sites

        sources = sources_of(args, guest)
        kernels = [] if sources is None else call_sites.kernels_of(sources, force=args.symbols_force)
        rules = call_sites.placed_rules(rules, kernels)
        profile = None if profile is None else call_sites.placed(profile, kernels)
    with ControlClient(guest.control, identity=guest.identity) as client:
        client.hello()
        found = client.firmware(profile=profile, clear=args.clear, rules=[rule.text for rule in rules])
    if args.json:
        print_json(found)
    else:
        _report(guest.name, found, args.verbose)
    return 0


def _list(profiles: list[FirmwareProfile], as_json: bool) -> None:
    if as_json:
        print_json({"profiles": [profile.document() for profile in profiles]})
        return
    for profile in profiles:
        _wrapped(profile.summary or "the firmware as it is: nothing is wrong on purpose", f"{profile.name:<14}", 14)


def _show(profile: FirmwareProfile, as_json: bool) -> None:
    if as_json:
        print_json(profile.document())
        return
    _wrapped(profile.summary or "nothing is wrong on purpose", f"{profile.name}: ", 2)
    for title, text in (("Reproduces", profile.reproduces), ("Not in it", profile.not_reproduced)):
        if text:
            _wrapped(" ".join(text.split()), f"{title}: ", 2)
    for number, rule in enumerate(profile.rules, 1):
        _wrapped(rule.text, f"{number:3} ", 8)
        if rule.why:
            _wrapped(rule.why, " " * 6, 6)


def _wrapped(text: str, first: str, indent: int) -> None:
    say(*textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=" " * indent, break_on_hyphens=False))


def _report(name: str, found: dict[str, Any], verbose: int) -> None:
    rules = found["rules"]
    if not rules and not any(found[word] for word in ("deaf", "stuck", "held")):
        say(f"guest {name!r}: the firmware does nothing wrong on purpose (profile {found['profile']})")
        return
    say(f"guest {name!r}: this firmware misbehaves on purpose: profile {found['profile']}")
    if found["summary"]:
        _wrapped(found["summary"], "  ", 2)
    for word, what in (
        ("deaf", "take no interrupt and no event"),
        ("stuck", "stay in EL3"),
        ("held", "take no interrupt until their handlers complete"),
    ):
        if found[word]:
            say(f"  vCPUs that {what}: {', '.join(map(str, found[word]))}")
    if rules:
        print_table(
            "Rules",
            ["rule", "acted", "what"],
            ([n, r["acted"], _PLACES.sub("", r["rule"])] for n, r in enumerate(rules, 1)),
        )
    if verbose:
        for number, rule in enumerate(rules, 1):
            if rule["why"]:
                _wrapped(rule["why"], f"{number:3} ", 4)
