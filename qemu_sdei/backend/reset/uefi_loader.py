"""The loader of a guest whose own firmware is UEFI: the image, what it reads of us, a device tree, error sources.

UEFI finds QEMU's device tree at the start of RAM, where it looks for it, and all else by fw_cfg. Whether a kernel is
told of the machine by ACPI or by device tree UEFI decides, by whether there are tables: so with a device tree there are
none.
"""

from __future__ import annotations

from qemu_sdei.acpi import AcpiError
from qemu_sdei.acpi.linker import SCRIPT_FILE
from qemu_sdei.acpi.own import BootErrors
from qemu_sdei.backend.reset.fw_cfg_dma import FIRST_DIRECTORY, FwCfg, Transfer, clearing
from qemu_sdei.backend.reset.loader import START
from qemu_sdei.backend.reset.machine_files import MachineFiles
from qemu_sdei.boot import acpi
from qemu_sdei.boot.area import AcpiArea, Announced
from qemu_sdei.boot.config import BootConfig, Entry
from qemu_sdei.boot.image import KernelImage, read_file
from qemu_sdei.boot.load_addresses import BLOCK
from qemu_sdei.boot.machine_tables import complete
from qemu_sdei.boot.tree import check_ram, firmware_tree
from qemu_sdei.boot.user_tables import unpacked, unpacked_errors
from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.monitor.ops import MicroOp
from qemu_sdei.monitor.window import Window
from qemu_sdei.uefi import image, items

_TABLES = "etc/acpi/"
"""What the names of the files with ACPI tables begin with."""


class UefiLoader:
    """Loads UEFI."""

    def __init__(self, config: BootConfig, window: Window, announced: Announced) -> None:
        """Raises UsageError: what the configuration names cannot be booted, there are too many error sources, or a
        table of the user's cannot be.
        """
        if config.uefi is None:
            raise ValueError("a boot without UEFI")
        self._config = config
        self._window = window
        self._announced = announced
        self._fw_cfg = FwCfg(window)
        self._machine = MachineFiles(self._fw_cfg)
        self._image = image.load(config.uefi)
        self._at = config.ram_base + config.ram_size - config.hidden_size
        if self._at % BLOCK:
            raise UsageError(f"boot configuration: hidden_size {config.hidden_size:#x} is no place for a UEFI image")
        if self._at + len(self._image) > window.base:
            raise UsageError(f"{config.uefi}: this UEFI image is larger than when the guest was started")
        self._added = acpi.Added(unpacked(config.acpi_tables), unpacked_errors(config.boot_errors))
        self._kernel: dict[int, bytes] = {}
        if config.kind == "linux":
            kernel = KernelImage.load(config.kernel)
            initrd = read_file(config.initrd, "initrd") if config.initrd else b""
            self._kernel = items.kernel(kernel.data, initrd, config.append)
        if config.tables == "acpi":
            AcpiArea.of(config).sources(announced.sources)
        self._items: dict[int, bytes] | None = None

    def begin(self, again: bool) -> list[MicroOp]:
        """See `Boot`."""
        clear: list[Transfer] = [clearing(self._at, len(self._image))] if again else []
        return self._fw_cfg.operations(START, [*clear, self._machine.first()])

    def proceed(self, frame: memoryview) -> list[MicroOp]:
        """See `Boot`."""
        step = self._fw_cfg.step_of(frame)
        wanted = self._config.tables == "acpi" and self._machine.is_step(step)
        return self._machine.after(step) if wanted else []

    def load(self, epoch: int) -> Entry:
        """See `Boot`."""
        ram, config = self._window.ram, self._config
        check_ram(ram, config)
        tree = firmware_tree(ram, config)
        if config.tables == "acpi":
            sources = AcpiArea.of(config).sources(self._announced.sources)
            told = acpi.errors_to_tell(ram, config, sources, self._added, epoch)
            acpi.reset_status(ram, config, sources, told, epoch)
        for address, data in ((self._at, self._image), (config.ram_base, tree)):
            ram[address - config.ram_base :][: len(data)] = data
        self._items = None
        self.items()  # so that what is wrong with QEMU's files ends the boot
        return Entry(pc=0, x0=config.ram_base, x1=0)

    def items(self) -> dict[int, bytes]:
        """What the guest reads by fw_cfg that is ours, by selector. Made of what was read at the last reset, which is
        still there: so a backend that is started again has the same.

        Raises:
            GuestError: QEMU's files are damaged, or do not fit.
        """
        if self._items is None:
            self._items = self._kernel | self._of_machine()
        return self._items

    def _of_machine(self) -> dict[int, bytes]:
        if self._config.tables != "acpi":
            listed = self._fw_cfg.directory(FIRST_DIRECTORY)
            known = {name: entry for name, entry in listed.items() if not _is_of_tables(name)}
            return {items.DIRECTORY: items.directory(known)}
        listed = self._machine.directory()
        try:
            files = self._tables()
        except AcpiError as error:
            raise GuestError(f"the ACPI tables that QEMU should have in its fw_cfg: {error}") from error
        known = {name: (selector, len(files.get(name, b"")) or size) for name, (selector, size) in listed.items()}
        found = {listed[name][0]: data for name, data in files.items()}
        return found | {items.DIRECTORY: items.directory(known)}

    def _tables(self) -> dict[str, bytes]:
        """The table loader's files with ours among them."""
        config, area = self._config, AcpiArea.of(self._config)
        sources = area.sources(self._announced.sources)
        where, size = area.boot_errors
        status = self._window.ram[where - config.ram_base :][:4]
        files = self._machine.files()
        linked = items.linked(files)
        whole = complete(
            linked,
            config,
            sources,
            self._announced.agdi,
            BootErrors(where, size) if any(status) else None,
            self._added.tables,
            self._announced.agdi_interrupt,
        )
        return items.completed(files, whole)


def _is_of_tables(name: str) -> bool:
    return name == SCRIPT_FILE or name.startswith(_TABLES)
