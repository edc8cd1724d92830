"""What describes a machine's firmware to an operating system: device-tree nodes and ACPI tables.

Stands alone: it takes bytes and gives bytes, opens no file, and imports nothing of `qemu_sdei`.
"""

from qemu_sdei.acpi.errors import AcpiError, DtError, TableError

__all__ = ["AcpiError", "DtError", "TableError"]
