"""The subcommands: in which group of `qemu-sdei --help` each stands, and its line there.

Nothing here imports a command: `--help` must be quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

GROUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "run": {
        "run": "boot a guest: with a command, a script, or its console",
        "restore": "go on with a saved guest",
        "selftest": "check the firmware with the embedded bare-metal guest",
        "conformance": "go through the rules of SDEI with a bare-metal guest",
        "compare": "compare another firmware with ours, by generated calls and the conformance suite",
        "demo": "boot Debian's stock kernel, migrate it and inject an event that it handles",
        "doctor": "say what is missing on this machine, and what to do",
    },
    "look": {
        "list": "list running guests",
        "logs": "what a guest has printed on its console",
        "status": "show vCPUs, events and call counts of a running guest",
        "top": "watch a running guest: vCPUs, events, rates, latencies, what happens",
        "events": "show what happens in a running guest: events, power, resets",
        "trace": "show what happened between a guest and its firmware",
        "explain": "say what is the matter with a running guest, also one that hangs",
        "report": "write a trace as one page for a browser",
        "regs": "SDEI state and services as KVM's registers",
        "cper": "read error records (CPER) from anywhere, and write them in another form",
        "vmcore": "say what is in a crash dump: who panicked, registers, kernel log",
    },
    "act": {
        "inject": "inject an SDEI event into a running guest",
        "ras": "report hardware errors to a running guest, and see what its kernel makes of them",
        "nmi": "give a running guest an NMI: have it panic, or dump its state",
        "firmware": "have a running guest's firmware misbehave on purpose, and say what it does",
        "crash": "crash guests on purpose, and compare what comes of it",
        "pause": "stop a guest's vCPUs",
        "resume": "have a paused guest run again",
        "wait": "wait for a guest's end, and return its exit status",
        "stop": "end running guests, with an owner or without",
        "exec": "run a command in a running guest",
        "attach": "take over a guest whose owner was killed",
        "console": "the console of a running guest, in this terminal",
    },
    "move": {
        "migrate": "move a running guest to a new QEMU and backend, here or on another host",
        "receive": "wait for a guest from another host",
        "save": "write a running guest into a directory",
        "snapshot": "save a running guest in a disk image, or go back to that",
    },
    "tables": {
        "tables": "write ACPI tables for firmware builds; check, show and compare tables from anywhere",
        "dt": "print the firmware's device-tree nodes, or merge them into a DTB",
    },
    "your own QEMU, your shell": {
        "qemu-args": "print the QEMU options for a QEMU or libvirt of your own",
        "backend": "serve a QEMU of your own",
        "completion": "print shell completion",
    },
}
"""Command → what it is for, by group."""
SENTENCES: Final[Mapping[str, str]] = {name: line for group in GROUPS.values() for name, line in group.items()}
COMMANDS: Final = tuple(SENTENCES)
TOGETHER: Final[Mapping[str, str]] = {"resume": "pause"}
"""A command that has no file of its own → the one whose file has it."""
ALIASES: Final[Mapping[str, str]] = {"ps": "list", "ls": "list"}


def module_of(command: str) -> str:
    """Name of the module that has a command."""
    return f"qemu_sdei.cli.{TOGETHER.get(command, command).replace('-', '_')}_command"
