"""Which services a guest is to find: what its events file says, and what the command line says in place of that."""

from __future__ import annotations

from dataclasses import replace

from qemu_sdei.errors import UsageError
from qemu_sdei.sdei.machine_description import MachineDescription
from qemu_sdei.smccc import selection
from qemu_sdei.vm.options import GuestOptions


def elected(options: GuestOptions) -> GuestOptions:
    """The same options, with what `[services]` of the events file says of registers that they do not name.

    Raises:
        UsageError: the events file cannot be read or is wrong.
    """
    if options.events is None:
        return options
    named = selection.parse(options.selection)
    described = MachineDescription.load(options.events).selection
    more = [text for text in described if text.partition("=")[0] not in named]
    return replace(options, selection=(*more, *options.selection)) if more else options


def check(options: GuestOptions) -> None:
    """Raises `UsageError`: a service is asked for that such a guest cannot have."""
    words = selection.parse(options.selection)
    if not options.sdei and "sdei" in words.get("std", ()):
        raise UsageError("--no-sdei and --services with sdei contradict each other: leave one out")
    for register, features in words.items():
        if features and register.startswith("vendor-hyp") and not options.hypervisor:
            raise UsageError(
                f"--services {register}={','.join(features)}: KVM's own calls go by HVC, so they need --hypervisor"
            )
