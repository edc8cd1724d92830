"""`acpi`, the name of `qemu_sdei.acpi` before 0.2: warns, and gives the same modules. Goes with the next release."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from pkgutil import walk_packages

import qemu_sdei.acpi

warnings.warn("the package acpi is qemu_sdei.acpi since 0.2: import that one", DeprecationWarning, stacklevel=2)

# All at once: what is imported from here later must be the module that others have, not a second one of its file.
for _found in walk_packages(qemu_sdei.acpi.__path__, "qemu_sdei.acpi."):
    sys.modules[_found.name.removeprefix("qemu_sdei.")] = import_module(_found.name)
sys.modules[__name__] = qemu_sdei.acpi
