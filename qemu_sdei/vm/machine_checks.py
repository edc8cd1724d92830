"""Checks of what a user asks of QEMU's machine: vCPUs and their topology, RAM, EL2, CPU model. Nothing is created."""

from __future__ import annotations

import math
import re
from pathlib import Path

from qemu_sdei import idle_states
from qemu_sdei.config import MAX_CPUS, check_name
from qemu_sdei.errors import UsageError
from qemu_sdei.host import memory
from qemu_sdei.host.cpu_models import check_cpu
from qemu_sdei.paths import readable_file, writable_file
from qemu_sdei.smccc import call_filter
from qemu_sdei.vm import elected_services
from qemu_sdei.vm.options import SMC, GuestOptions


def check_machine(options: GuestOptions) -> tuple[Path, int]:
    """Check what concerns QEMU alone; return its path and the RAM size in bytes. Raises `UsageError`."""
    from qemu_sdei.host.environment import find_qemu
    from qemu_sdei.host.lost_pages import LOSES_NOTHING

    if not 1 <= options.smp <= MAX_CPUS:
        raise UsageError(f"{options.smp} vCPUs are not possible: give 1 to {MAX_CPUS}")
    check_topology(options)
    check_hypervisor(options)
    qemu = find_qemu(None if options.qemu is None else Path(options.qemu))
    padded = options.pad_memory
    if padded is None:
        where = None if options.memory_path is None else Path(options.memory_path)
        padded = qemu.version < LOSES_NOTHING and memory.padded_by_default(options.memory, options.smp, where)
    size = memory.ram_size(options.memory, padded=padded)
    if options.name is not None:
        check_name(options.name)
    for path, what in ((options.events, "events file"), *((service, "service") for service in options.services)):
        if path is not None:
            readable_file(path, what)
    call_filter.parse(options.smccc_filter)
    elected_services.check(options)
    if options.firmware is not None:
        from qemu_sdei.profiles.firmware_profile import load

        load(options.firmware)
    if options.trace is not None:
        writable_file(options.trace, "trace")
    if options.low_latency and (why := idle_states.why_not()) is not None:
        raise UsageError(f"the host's cores cannot be kept awake: {why}; run as root, or leave out --low-latency")
    check_cpu(options.cpu, qemu.path)
    return qemu.path, size


def check_hypervisor(options: GuestOptions) -> None:
    """Check what EL2 is to be, and what SMC is. Raises `UsageError`."""
    if options.hypervisor and options.virtualization:
        raise UsageError("EL2 is the guest's with --virtualization, and ours with --hypervisor: leave out one of them")
    if options.smc not in SMC:
        raise UsageError(f"smc {options.smc!r} is not understood: give {', '.join(map(repr, SMC))}")
    if options.smc != SMC[0] and not options.hypervisor:
        raise UsageError(f"without a hypervisor a guest calls by SMC: --smc {options.smc} needs --hypervisor")
    if not options.stage2 and not options.hypervisor:
        raise UsageError("stage 2 is only there with a hypervisor: --no-stage2 needs --hypervisor")


def check_topology(options: GuestOptions) -> None:
    """Check that the levels of `topology` are QEMU's and that there are just enough of them. Raises `UsageError`."""
    if not options.topology:
        return
    levels: dict[str, int] = {}
    for word in options.topology.split(","):
        level, _, count = word.partition("=")
        if (
            level not in ("sockets", "clusters", "cores", "threads")
            or level in levels
            or not re.fullmatch("[0-9]{1,3}", count)
        ):
            raise UsageError(
                f"the CPU topology {word!r} is not understood: write it as QEMU's -smp, such as 6,sockets=2,cores=3"
            )
        levels[level] = int(count)
    if math.prod(levels.values()) != options.smp:
        raise UsageError(f"{options.topology} makes {math.prod(levels.values())} vCPUs, not {options.smp}")
