"""The former name of `qemu_sdei.sdei.machine_description`: a profile is what firmware does wrong on purpose now."""

from __future__ import annotations

import warnings

from qemu_sdei.sdei.machine_description import MachineDescription as Profile

__all__ = ["Profile"]

warnings.warn(
    "qemu_sdei.sdei.profile.Profile is qemu_sdei.sdei.machine_description.MachineDescription now",
    DeprecationWarning,
    stacklevel=2,
)
