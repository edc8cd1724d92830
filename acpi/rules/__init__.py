"""The rules that `verify` checks tables by: `NAME.py` for the tables of `acpi/tables/NAME.py`, if it needs any.

`RULES` has the function for each class of tables: each module here is imported, and says what it is for.
"""

from qemu_sdei.acpi.modules import modules_in
from qemu_sdei.acpi.rules.registry import RULES

__all__ = ["RULES"]

modules_in(__name__, __path__)
