"""The situations that are recognised: `NAME.py` for each, found by being here. `RULES` has the functions."""

from qemu_sdei.acpi.modules import modules_in
from qemu_sdei.explain.rules.registry import RULES

__all__ = ["RULES"]

modules_in(__name__, __path__)
