"""Options that describe a machine and its firmware, shared by the commands that start one."""

from __future__ import annotations

import argparse
import re
import shlex

from qemu_sdei.cli.output import say
from qemu_sdei.errors import UsageError
from qemu_sdei.vm.options import SMC, GuestOptions


def add_machine_options(parser: argparse.ArgumentParser, *, smp: int = 2) -> None:
    """Add what concerns the machine and its firmware; `smp` is the default number of vCPUs."""
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--smp",
        default=str(smp),
        metavar="N[,T]",
        help=f"number of vCPUs, 1 to 512, and their topology if it matters: 6,sockets=2,cores=3 (default: {smp})",
    )
    group.add_argument("--memory", "-m", default="1G", metavar="M", help="RAM, with M or G (default: 1G)")
    group.add_argument(
        "--pad-memory",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="make RAM 8 KiB larger, which works around a fault of QEMU before 9.0: it drops RAM pages in a "
        "live migration (default: on with such a QEMU, if RAM times vCPUs is at most 2G)",
    )
    group.add_argument("--cpu", default="cortex-a72", metavar="C", help="QEMU's CPU model (default: cortex-a72)")
    group.add_argument("--virtualization", action="store_true", help="give the guest EL2 for its own use")
    group.add_argument(
        "--hypervisor",
        action="store_true",
        help="run the guest as KVM does: at EL1, with an EL2 below it, calling by HVC",
    )
    group.add_argument(
        "--smc",
        metavar="HOW",
        default=SMC[0],
        help="with --hypervisor, what an SMC of the guest does: served (as an HVC, the default), unsupported "
        "(returns NOT_SUPPORTED), or undefined (raises an exception)",
    )
    group.add_argument(
        "--no-stage2",
        action="store_true",
        help="with --hypervisor, use no stage 2 page tables: the guest's CPUs can then access the firmware's memory",
    )
    group.add_argument("--name", help="name of the guest, for other commands (default: guest, guest-2, ...)")
    group.add_argument("--qemu", metavar="FILE", help="qemu-system-aarch64 to use (default: the one on PATH)")
    group = parser.add_argument_group("firmware")
    group.add_argument("--events", metavar="FILE", help="machine description (TOML): SDEI events and error sources")
    group.add_argument(
        "--firmware",
        metavar="P",
        help="make the firmware misbehave on purpose: a profile of `qemu-sdei firmware --list`, or a TOML file",
    )
    group.add_argument(
        "--no-sdei",
        action="store_true",
        help="offer no SDEI: its calls return NOT_SUPPORTED, and no table announces it",
    )
    group.add_argument("--sdei-version", metavar="M.N", help="version that SDEI_VERSION returns (default: 1.1)")
    group.add_argument("--sdei-vendor", metavar="WORD", help="low 32 bits of SDEI_VERSION (default: 0x4b564d)")
    group.add_argument(
        "--sdei-signal",
        metavar="HOW",
        help="what EVENT_SIGNAL does if the target vCPU is masked or has the event disabled: pend (the event "
        "waits, the default), or invalid (INVALID_PARAMETERS, as in TF-A)",
    )
    group.add_argument(
        "--sdei-slots",
        metavar="P,S",
        help="how many PPIs and SPIs the guest may bind (default: 4,8; 0,0: none, as in KVM)",
    )
    group.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="FILE",
        help="Python file that defines your own SMCCC services; may be repeated",
    )
    group.add_argument(
        "--services",
        nargs="+",
        action="extend",
        default=[],
        metavar="REGISTER=FEATURES",
        help="which built-in services the guest finds, by KVM's bitmap registers: std=trng,sdei, std-hyp=..., "
        "vendor-hyp=...; a register that you name offers only the features that you list (default: all)",
    )
    group.add_argument(
        "--smccc-filter",
        nargs="+",
        action="extend",
        default=[],
        metavar="ACTION:FUNC[+N]",
        help="handle, deny or forward calls before a service sees them, as KVM's SMCCC filter does; forward "
        "passes them to a --service",
    )


def machine_options(args: argparse.Namespace) -> GuestOptions:
    """`GuestOptions` from what `add_machine_options` added. Raises `UsageError`."""
    count, topology = vcpus(args.smp)
    return GuestOptions(
        smp=count,
        topology=topology,
        memory=args.memory,
        pad_memory=args.pad_memory,
        cpu=args.cpu,
        virtualization=args.virtualization,
        hypervisor=args.hypervisor,
        smc=args.smc,
        stage2=not args.no_stage2,
        name=args.name,
        qemu=args.qemu,
        events=args.events,
        sdei_version=args.sdei_version,
        sdei_vendor=None if args.sdei_vendor is None else _number(args.sdei_vendor, "--sdei-vendor"),
        sdei_signal=args.sdei_signal,
        sdei_slots=None if args.sdei_slots is None else _slots(args.sdei_slots),
        firmware=args.firmware,
        sdei=not args.no_sdei,
        services=args.service,
        selection=args.services,
        smccc_filter=args.smccc_filter,
    )


def say_profile(options: GuestOptions) -> None:
    """Tell the user what of a guest's firmware will be unusual on purpose. Raises `UsageError`: no such profile, or
    filter.
    """
    if options.smccc_filter:
        from qemu_sdei.smccc import call_filter

        for rule in call_filter.unwise(call_filter.parse(options.smccc_filter)):
            say(
                f"qemu-sdei: warning: --smccc-filter {rule} takes PSCI from the guest: it starts no other CPU then, or "
                "cannot power off",
                error=True,
            )
    if options.firmware is None:
        return
    from qemu_sdei.profiles.firmware_profile import load

    profile = load(options.firmware)
    if profile.misbehaves:
        what = f" ({profile.summary})" if profile.summary else ""
        say(f"qemu-sdei: this firmware misbehaves on purpose: profile {profile.name}{what}", error=True)


def vcpus(text: str) -> tuple[int, str]:
    """How many vCPUs --smp asks for, and how they lie. Raises `UsageError`."""
    count, _, topology = text.partition(",")
    if not re.fullmatch("-?[0-9]{1,9}", count):
        raise UsageError(f"--smp {text!r} is not a number of vCPUs: give 1 to 512")
    return int(count), topology


def _number(text: str, option: str) -> int:
    try:
        if len(text) <= 20:
            return int(text, 0)
    except ValueError:
        pass
    raise UsageError(f"{option} {text!r} is not understood: write a number, such as 0 or 0x4b564d")


def _slots(text: str) -> tuple[int, int]:
    private, comma, shared = text.partition(",")
    if not comma:
        raise UsageError(f"--sdei-slots {text!r} is not understood: write two numbers, such as 4,8")
    return _number(private, "--sdei-slots"), _number(shared, "--sdei-slots")


def split_words(arguments: list[str]) -> list[str]:
    """The words of several --qemu-arg. Raises `UsageError`."""
    try:
        return [word for argument in arguments for word in shlex.split(argument)]
    except ValueError as error:
        raise UsageError(f"--qemu-arg cannot be split into words: {error}") from None
