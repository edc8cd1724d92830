"""The former name of `qemu_sdei.host.client_module`."""

from __future__ import annotations

import warnings

from qemu_sdei.host.client_module import build_for

__all__ = ["build_for"]

warnings.warn("qemu_sdei.machine.module is qemu_sdei.host.client_module now", DeprecationWarning, stacklevel=2)
