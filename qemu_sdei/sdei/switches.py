"""The one place where a machine description and what a command line says instead come together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from qemu_sdei.config import GuestConfig
from qemu_sdei.errors import UsageError
from qemu_sdei.sdei.machine_description import SIGNALS, MachineDescription, parse_version


def description_of(config: GuestConfig) -> MachineDescription:
    """The machine description of a guest: its TOML file, or the built-in one, with the switches of `config` in place of
    what stands there.

    Raises:
        UsageError: the file cannot be read or is wrong, or a switch has a value that cannot be.
    """
    profile = MachineDescription.load(Path(config.events)) if config.events else MachineDescription.default()
    changes: dict[str, Any] = {}
    if config.sdei_version is not None:
        version = parse_version(config.sdei_version)
        if version is None:
            raise UsageError(f"SDEI version {config.sdei_version!r} is not understood: write MAJOR.MINOR, such as 1.0")
        changes["version"] = version
    if config.sdei_vendor is not None:
        changes["vendor"] = config.sdei_vendor
    if config.sdei_signal is not None:
        if config.sdei_signal not in SIGNALS:
            raise UsageError(f"SDEI signal {config.sdei_signal!r}: give one of {', '.join(SIGNALS)}")
        changes["strict_signal"] = SIGNALS[config.sdei_signal]
    if config.sdei_slots is not None:
        changes["slots"] = config.sdei_slots
    return dataclasses.replace(profile, **changes) if changes else profile
