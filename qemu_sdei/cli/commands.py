"""The subcommands: in which group of `qemu-sdei --help` each stands, and its line there.

Nothing here imports a command: `--help` must be quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

GROUPS: Final[Mapping[str, Mapping[str, str]]] = {
    "run": {
        "run": "boot a guest: with a command, a script, or its console",
        "restore": "restore a saved guest",
        "selftest": "check the firmware with the embedded bare-metal guest",
        "conformance": "test the rules of SDEI with a bare-metal guest",
        "compare": "compare another firmware with ours, by generated calls and the conformance suite",
        "demo": "boot Debian's stock kernel, migrate it and inject an event that it handles",
        "doctor": "check this machine, and say what is missing",
    },
    "look": {
        "list": "list running guests",
        "logs": "what a guest has printed on its console",
        "status": "show vCPUs, events and call counts of a running guest",
        "top": "watch a running guest: vCPUs, events, rates, latencies, what happens",
        "events": "show what happens in a running guest: events, power, resets",
        "trace": "show what happened between a guest and its firmware",
        "explain": "find out why a guest hangs",
        "report": "write a trace as one page for a browser",
        "regs": "show SDEI state and services as KVM's registers",
        "cper": "read and convert error records (CPER)",
        "vmcore": "show what is in a crash dump: panic, registers, kernel log",
    },
    "act": {
        "inject": "inject an SDEI event into a running guest",
        "ras": "report hardware errors to a running guest, and check how its kernel reacts",
        "nmi": "give a running guest an NMI",
        "firmware": "make a running guest's firmware misbehave on purpose",
        "crash": "crash guests on purpose, and compare the results",
        "pause": "pause a guest's vCPUs",
        "resume": "resume a paused guest",
        "wait": "wait for a guest's end, and return its exit status",
        "stop": "end running guests",
        "exec": "run a command in a running guest",
        "attach": "take over a guest whose owner was killed",
        "console": "the console of a running guest, in this terminal",
        "shell": "a Python prompt with a running guest bound to `guest`",
    },
    "move": {
        "migrate": "move a running guest to a new QEMU and backend, here or on another host",
        "receive": "wait for a guest from another host",
        "save": "save a running guest into a directory",
        "snapshot": "save a running guest in a disk image, or load such a snapshot",
    },
    "tables": {
        "tables": "write ACPI tables for firmware builds; check, show and compare tables",
        "dt": "print the firmware's device-tree nodes, or merge them into a DTB",
    },
    "your own QEMU, your shell": {
        "qemu-args": "print the command line for a QEMU or libvirt of your own",
        "backend": "serve a QEMU of your own",
        "initramfs": "write our own initramfs into a file",
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
