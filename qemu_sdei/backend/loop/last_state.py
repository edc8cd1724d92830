"""How everything stood for a backend that does not answer: from its journal alone, which is only read."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from qemu_sdei import rundir
from qemu_sdei.backend.firmware.core import RefusedSmc
from qemu_sdei.backend.firmware.firmware import Firmware
from qemu_sdei.backend.loop.journal import Journal
from qemu_sdei.backend.loop.recovery import replay
from qemu_sdei.config import GuestConfig
from qemu_sdei.monitor import layout
from qemu_sdei.sdei.switches import description_of


def last_state(directory: Path) -> dict[str, Any]:
    """What `status` would say of the guest in a run directory, without what is in no journal: counts, times. A user's
    services are left out: their calls change no event.

    Raises:
        ProtocolError: the journal is damaged, or of another version. `OSError`: there is none, or no room for a copy.
    """
    config = GuestConfig.from_json((directory / rundir.CONFIG).read_bytes())
    firmware = Firmware(
        config.nr_cpus,
        client_el=2 if config.virtualization else 1,
        profile=description_of(config),
        sdei=config.sdei,
        smc=RefusedSmc(config.smc) if config.smc != "served" else None,
        ram=range(config.ram_base, layout.window_base(config.ram_base, config.ram_size)),
        stolen_time=layout.window_base(config.ram_base, config.ram_size) + layout.PV_TIME_OFFSET,
        hypervisor=config.hypervisor,
        selection=config.selection,
        smccc_filter=config.smccc_filter,
    )
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-") as copy:
        # A journal is opened to be written, and one that is damaged must not be made to look sound.
        path = Path(copy) / "journal"
        shutil.copyfile(directory / rundir.JOURNAL, path)
        journal = Journal(path)
        replay(firmware, journal, config.nr_cpus, journal.load())
    sdei = firmware.dispatcher.status()
    pes = [
        entry | {"power": firmware.psci.power[n].name.lower().removeprefix("on_"), "calls": {}}
        for n, entry in enumerate(sdei["pes"])
    ]
    boot = {"epoch": firmware.machine.epoch, "kernels": firmware.machine.kernels}
    return boot | {"client_el": sdei["client_el"], "pes": pes, "events": sdei["events"] if config.sdei else []}
