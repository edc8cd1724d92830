"""One module for each ACPI table that has fields here; `RawTable` keeps every other."""

from acpi.tables.agdi import Agdi, SignalingMode
from acpi.tables.bert import Bert
from acpi.tables.fadt import Fadt
from acpi.tables.gas import AccessSize, AddressSpace, Gas
from acpi.tables.hest import Ghes, GhesV2, Hest, Notification, NotificationType, SourceType
from acpi.tables.raw import RawTable
from acpi.tables.root import Rsdp, Rsdt, Xsdt
from acpi.tables.sdei import Sdei
from acpi.tables.unparsed import Unparsed

__all__ = [
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
