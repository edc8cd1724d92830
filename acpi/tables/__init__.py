"""One module for each ACPI table that has fields here; `RawTable` keeps every other.

A module is all that a table needs to be known: `KINDS` has every class with a signature that is in one.
"""

from typing import Final

from qemu_sdei.acpi.modules import modules_in
from qemu_sdei.acpi.table import Table
from qemu_sdei.acpi.tables.agdi import Agdi, SignalingMode
from qemu_sdei.acpi.tables.bert import Bert
from qemu_sdei.acpi.tables.fadt import Fadt
from qemu_sdei.acpi.tables.gas import AccessSize, AddressSpace, Gas
from qemu_sdei.acpi.tables.hest import Ghes, GhesV2, Hest, Notification, NotificationType, SourceType
from qemu_sdei.acpi.tables.raw import RawTable
from qemu_sdei.acpi.tables.root import Rsdp, Rsdt, Xsdt
from qemu_sdei.acpi.tables.sdei import Sdei
from qemu_sdei.acpi.tables.unparsed import Unparsed

__all__ = [
    "KINDS",
    "AccessSize",
    "AddressSpace",
    "Agdi",
    "Bert",
    "Fadt",
    "Gas",
    "Ghes",
    "GhesV2",
    "Hest",
    "Notification",
    "NotificationType",
    "RawTable",
    "Rsdp",
    "Rsdt",
    "Sdei",
    "SignalingMode",
    "SourceType",
    "Unparsed",
    "Xsdt",
]


def _kinds() -> dict[str, type[Table]]:
    found: dict[str, type[Table]] = {}
    for module in modules_in(__name__, __path__):
        for kind in vars(module).values():
            # A class that a module has from another one is that one's.
            if isinstance(kind, type) and issubclass(kind, Table) and kind.__module__ == module.__name__:
                assert kind.SIGNATURE not in found, f"two classes for {kind.SIGNATURE}"
                if kind.SIGNATURE:
                    found[kind.SIGNATURE] = kind
    return found


KINDS: Final = _kinds()
"""The class for each signature that has one, in the order of the modules. FADT's signature is FACP."""
