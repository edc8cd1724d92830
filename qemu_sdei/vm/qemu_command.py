"""The QEMU command line: one place, pure, each odd option explained beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qemu_sdei.config import format_size

INCOMING: Final = ("-incoming", "defer", "-S")
"""QEMU waits for a guest that arrives by migration, and for `cont` before it runs it."""

PAUSED: Final = "-S"
"""QEMU waits for `cont` before it runs a vCPU."""


@dataclass(frozen=True)
class Wiring:
    """How QEMU's ends of RAM, doorbell, console and QMP are given: by descriptor, or by path for a user's own QEMU."""

    ram: str
    """`mem-path` of the RAM backend."""
    doorbell: str
    """Options of the doorbell's socket chardev."""
    console: Sequence[str]
    qmp: Sequence[str] = ()
    monitor: str = ""
    """The monitor's image."""
    helper: Sequence[str] = ()
    """The serial card of the helper in our own initramfs, if it is to have one."""
    channel: Sequence[str] = ()
    """The virtio serial card of the agent there, if it is to have one."""


HELPER_CARD: Final = "0000:00:1e.0"
"""PCI address of the helper's serial card: behind those that QEMU gives to a user's devices. Of all cards whose driver
Debian's kernels have built in it is the one that needs nothing else.
"""


CHANNEL_CARD: Final = "0000:00:1d.0"
"""PCI address of the agent's card, beside that."""


def _channel(ports: Sequence[int]) -> list[str]:
    """The agent's card, each port with a listening socket."""
    if not ports:
        return []
    # disable-legacy: the driver needs one module less. Each port has a queue of its own, so none waits for another.
    words = ["-device", f"virtio-serial-pci,id=channel,addr={CHANNEL_CARD[-4:]},max_ports=8,disable-legacy=on"]
    for number, fd in enumerate(ports):
        words += ["-chardev", f"socket,id=exec{number},fd={fd},server=on,wait=off"]
        words += [
            "-device",
            f"virtserialport,bus=channel.0,nr={number + 1},chardev=exec{number},name=qemu-sdei.{number}",
        ]
    return words


def fd_wiring(
    monitor: str,
    *,
    ram: int,
    doorbell: int,
    console: int,
    qmp: int,
    helper: int | None = None,
    channel: Sequence[int] = (),
) -> Wiring:
    """Wiring by inherited descriptors: RAM, which has no name, and listening unix sockets for the rest."""
    return Wiring(
        # QEMU opens the path once more: a memfd has none of its own, but procfs has one for every descriptor.
        ram=f"/proc/self/fd/{ram}",
        doorbell=f"fd={doorbell}",
        # wait=on: not before somebody has connected, as its owner has before QEMU starts, so that the first words of
        # the guest are not lost. What it prints later while nobody is connected is dropped, and never waits.
        console=("-chardev", f"socket,id=console,fd={console},server=on,wait=on", "-serial", "chardev:console"),
        qmp=("-chardev", f"socket,id=qmp,fd={qmp},server=on,wait=off", "-qmp", "chardev:qmp"),
        monitor=monitor,
        channel=_channel(channel),
        helper=()
        if helper is None
        else (
            "-chardev",
            f"socket,id=helper,fd={helper},server=on,wait=off",
            "-device",
            f"pci-serial,chardev=helper,addr={HELPER_CARD[-4:]}",
        ),
    )


def machine_arguments(
    *, nr_cpus: int, ram_size: int, cpu: str, virtualization: bool, wiring: Wiring, topology: str = ""
) -> list[str]:
    """The options that make a `virt` machine one whose firmware we are; a user's own QEMU needs just these.

    The order of `-serial` matters: the first is the guest's console, the second (secure) one the doorbell.
    """
    size = format_size(ram_size)
    return [
        "-machine",
        # secure=on: the CPUs have EL3 and start there, PSCI is left to us, and secure flash, SRAM, UART and GPIO exist.
        # gic-version=3: Group 0 interrupts reach EL3 as FIQ by the system registers; GICv2 has no such route per vCPU.
        "virt,secure=on,gic-version=3"
        # virtualization=on: the guest has EL2 for its own use.
        + (",virtualization=on" if virtualization else "")
        # memory-backend: RAM is the object below, which the backend maps as well.
        + ",memory-backend=ram",
        # debug-threads=on: the backend finds the vCPUs' threads by their names, and how long the host lets them wait.
        "-name",
        "debug-threads=on",
        "-cpu",
        cpu,
        "-smp",
        # maxcpus=2 with one CPU: for a machine that can never have two, TCG leaves out the guest's memory barriers. The
        # other side of the monitor's is not a vCPU but a host process, so they are needed all the same.
        ",".join(filter(None, (str(nr_cpus), topology))) if nr_cpus > 1 else "1,maxcpus=2",
        "-m",
        size,
        # share=on: what either side writes the other sees.
        "-object",
        f"memory-backend-file,id=ram,share=on,size={size},mem-path={wiring.ram}",
        # The monitor lies in secure flash at 0, where every CPU comes out of reset.
        "-bios",
        wiring.monitor,
        *wiring.console,
        # server=on: the backend is the client, because it may die and come back while QEMU lives.
        # wait=off: QEMU starts without it; the vCPUs wait in the monitor.
        "-chardev",
        f"socket,id=doorbell,{wiring.doorbell},server=on,wait=off",
        "-serial",
        "chardev:doorbell",
        *wiring.qmp,
        *wiring.helper,
        *wiring.channel,
    ]


def command_line(
    qemu: str,
    *,
    nr_cpus: int,
    ram_size: int,
    cpu: str,
    virtualization: bool,
    wiring: Wiring,
    reboot: bool,
    topology: str = "",
    extra: Sequence[str] = (),
) -> list[str]:
    """The whole command line of a guest of ours.

    `reboot`: the guest's resets are resets; otherwise they end QEMU. `extra` comes last, so that a user can override.
    """
    return [
        qemu,
        # A user's qemu.conf and QEMU's default devices (NIC, CD-ROM) would make the machine another one on each host.
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        *machine_arguments(
            nr_cpus=nr_cpus,
            ram_size=ram_size,
            cpu=cpu,
            virtualization=virtualization,
            wiring=wiring,
            topology=topology,
        ),
        # With a command to run, a panic (panic=-1) or a reboot must end the guest, not start it again.
        *(() if reboot else ("-no-reboot",)),
        *extra,
    ]
