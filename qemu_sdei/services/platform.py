"""What the firmware offers to the services that are built into it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qemu_sdei.sdei.dispatcher import Dispatcher
from qemu_sdei.smccc.registry import Registry


class PowerControl(Protocol):
    """What PSCI needs done."""

    def start_cpu(self, pe: int) -> None:
        """Interrupt a CPU that waits in the monitor, so that it can be sent to its entry point."""

    def stop_cpu(self, pe: int) -> None:
        """The calling CPU does not return: it waits in the monitor."""

    def standby(self, pe: int) -> None:
        """The calling CPU waits for an interrupt before it returns."""

    def suspend(self, pe: int, entry: int, context: int) -> None:
        """The calling CPU loses its context: it waits for an interrupt and comes up at `entry` with x0 = `context`."""

    def in_handler(self, pe: int) -> bool:
        """Whether an SDEI handler runs on the calling CPU."""

    def kernel_begins(self, pe: int) -> Generator[Any, Any, None] | None:
        """A kernel's PSCI driver has started, on the calling CPU. Returns what must be done before it runs on."""

    def system_off(self) -> None:
        """Power the machine off."""

    def system_reset(self) -> None:
        """Reset the machine."""


@dataclass(frozen=True, slots=True)
class CrossTime:
    """One moment, by two clocks."""

    wall_ns: int
    """The host's real time: nanoseconds since 1970."""
    counter: int
    """The guest's physical counter (CNTPCT_EL0)."""


@dataclass(frozen=True, slots=True)
class Platform:
    """The machine and the firmware that a built-in service is made for."""

    affinities: Sequence[int]
    """Of each CPU, in MPIDR form; as many as there are CPUs."""
    registry: Registry
    """The services of the guest. Each is registered after it was made: ask it when a call comes."""
    dispatcher: Dispatcher
    """The SDEI core: there also where the guest is served no SDEI."""
    power: PowerControl
    """What is done to CPUs and to the machine."""
    ram: range | None = None
    """Physical addresses that the guest can run at with its MMU off; None: any."""
    serves_sdei: bool = True
    """Whether the guest finds SDEI."""
    entropy: Callable[[int], bytes] = os.urandom
    """Gives as many random bytes as it is asked for."""
    stolen_time: int | None = None
    """Physical address of the first CPU's record of stolen time; None: there is no memory for them."""
    hypervisor: bool = False
    """The guest runs as under a hypervisor, and calls by HVC."""
    id_registers: Callable[[], Mapping[str, int]] = dict
    """ID registers by name, as CPU 0 came out of reset with them."""
    cross_time: Callable[[], CrossTime | None] = lambda: None
    """When the call that is being answered came; None: the monitor does not tell, or it is not now."""
