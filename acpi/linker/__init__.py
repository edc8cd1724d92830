"""QEMU's table loader: how a hypervisor hands its ACPI tables to the firmware inside the machine.

QEMU cannot know at which addresses firmware will put the tables, and ACPI tables are full of addresses and checksums.
So it gives them as files without addresses (`etc/acpi/tables`, `etc/acpi/rsdp`, ...) and a script, `etc/table-loader`,
that says which files to place, where to add which file's address, and which checksums to make then.

Format: the commands' layout is that of QEMU's firmware interface (BIOS linker/loader), the same since 2.0.
"""

from qemu_sdei.acpi.linker.commands import AddChecksum, AddPointer, Allocate, Command, WritePointer, Zone, emit, parse
from qemu_sdei.acpi.linker.execute import Blob, Loaded, Pointer, allocator, execute
from qemu_sdei.acpi.linker.write import RSDP_FILE, SCRIPT_FILE, TABLES_FILE, files_of

__all__ = [
    "RSDP_FILE",
    "SCRIPT_FILE",
    "TABLES_FILE",
    "AddChecksum",
    "AddPointer",
    "Allocate",
    "Blob",
    "Command",
    "Loaded",
    "Pointer",
    "WritePointer",
    "Zone",
    "allocator",
    "emit",
    "execute",
    "files_of",
    "parse",
]
