"""What a backend serves: the guest's window, what decides for it, its journal, and how far each CPU is."""

from __future__ import annotations

from typing import Any

from qemu_sdei.backend.firmware.cpu_starts import Starts
from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.loop.journal import Journal
from qemu_sdei.backend.loop.ready_answers import ReadyAnswers
from qemu_sdei.monitor.window import Window


class ServedGuest:
    """One guest, as the loop, its checkpoints, `status` and the state document see it.

    Attributes:
        window: the frame window in guest RAM.
        firmware: what decides.
        journal: what was decided about, for the backend that comes after a crash.
        calls: how often each function was called, per PE, since the backend started to serve this guest; under UNKNOWN
            what nobody serves, under OTHER what is served beyond MAX_FUNCTIONS of them.
        ready: answers that the monitor gives by itself; their calls are in `calls` after `ready.collect`.
        starts: which CPUs were started and have not called since.
        answered: sequence number of the newest frame of each PE that was answered. The list stays the same object.
        seen: SEQ word of each PE as last looked at.
        machine: what a state document must be of: see `state_document.machine_of`.
    """

    def __init__(self, window: Window, firmware: Firmware, journal: Journal) -> None:
        self.window = window
        self.firmware = firmware
        self.journal = journal
        self.calls: dict[int, list[int]] = {}
        self.ready = ReadyAnswers(window, self.calls, firmware.machine.client_el)
        self.starts = Starts(firmware.power.started, firmware.psci.power, self.calls, self.ready.collect)
        self.answered = [0] * window.nr_cpus
        self.seen = memoryview(bytearray(8 * window.nr_cpus)).cast("Q")
        self.machine: dict[str, Any] = {}
