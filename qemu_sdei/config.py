"""What a guest is, in data: the `guest.json` that the machine side writes and the backend reads.

Importable by every room: nothing here knows of QEMU, processes or files.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from qemu_sdei import bounded, codec
from qemu_sdei.errors import ProtocolError, UsageError

RAM_BASE: Final = 0x4000_0000
"""Where RAM begins on QEMU's `virt` machine."""
MIN_RAM: Final = 64 << 20
"""A stock kernel with a small initrd does not come up with less."""
MAX_RAM: Final = 255 << 30
"""QEMU's `virt` moves its upper devices beyond this, where the monitor does not look for them."""
MAX_CPUS: Final = 512
"""What QEMU's `virt` machine takes at most with a GICv3."""
MAX_CONFIG: Final = 1 << 20
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,31}")

_UNITS: Final = {"": 1 << 20, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Size in bytes of `text` as QEMU's `-m` writes it: a number with K, M or G; MiB without a suffix.

    Raises `UsageError`.
    """
    match = re.fullmatch(r"([0-9]{1,15})(?:([KMG])(?:i?B)?)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"memory size {text!r} is not understood: write a number with M or G, such as 512M or 2G")
    return int(match[1]) * _UNITS[(match[2] or "").upper()]


def shown_ram(size: int) -> str:
    """A guest's RAM as it was asked for: without the 8 KiB that a whole number of MiB is given more of."""
    return format_size(size - 8192 if size % (1 << 20) == 8192 else size)


def format_size(size: int) -> str:
    """`size` bytes as a person writes it: 1G, 1536M, 1048568K; always exact where `parse_size` can be."""
    for unit in "GMK":
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size}B"


def check_name(name: str) -> str:
    """Return `name` if it can be a guest's name. Raises `UsageError`."""
    if NAME_PATTERN.fullmatch(name) is None:
        raise UsageError(
            f"guest name {name!r} cannot be used: 1 to 32 of A-Z a-z 0-9 . _ - are allowed, and no . or - at the start"
        )
    return name


@dataclass(frozen=True)
class GuestConfig:
    """All that the backend must know of a guest to serve it.

    `boot` is the JSON form of `qemu_sdei.boot.config.BootConfig`; this module does not look into it.
    """

    name: str
    nr_cpus: int
    cpu: str
    """QEMU's `-cpu` argument."""
    ram_size: int
    """Bytes, the window included."""
    boot: dict[str, Any] = field(default_factory=dict)
    ram_base: int = RAM_BASE
    ram_path: str | None = None
    """RAM as a file by path; None when the backend gets a descriptor (`--ram-fd`)."""
    virtualization: bool = False
    """The guest has EL2 for its own use."""
    hypervisor: bool = False
    """EL2 is ours: the guest runs as under a hypervisor."""
    smc: Literal["served", "unsupported", "undefined"] = "served"
    """What becomes of an SMC of a guest that calls by HVC."""
    stage2: bool = True
    """Stage 2 keeps the CPUs of such a guest from the frame window."""
    events: str | None = None
    """TOML file that says which SDEI events the machine has; None for the built-in set."""
    sdei_version: str | None = None
    """What SDEI_VERSION answers, such as "1.0". This and the next three: None for what the events file says."""
    sdei_vendor: int | None = None
    """Low 32 bits of SDEI_VERSION."""
    sdei_signal: str | None = None
    """`pend` or `invalid`: what becomes of EVENT_SIGNAL to a PE that could not take the event at once."""
    sdei_slots: tuple[int, int] | None = None
    """How many PPIs and SPIs a guest may bind."""
    sdei: bool = True
    """False: the firmware has no SDEI at all; its function ids are NOT_SUPPORTED."""
    firmware: dict[str, Any] = field(default_factory=dict)
    """The document of a firmware profile (`qemu_sdei.profiles`); empty: the firmware does nothing wrong. This module
    does not look into it.
    """
    services: tuple[str, ...] = ()
    """Python files with the user's own SMCCC services."""
    selection: tuple[str, ...] = ()
    """Which built-in services the guest finds, as `run --services` takes it; what is not named: all there are."""
    smccc_filter: tuple[str, ...] = ()
    """What becomes of calls before a service sees them, as `run --smccc-filter` takes it."""
    trace: str | None = None
    """File that receives one JSON record per firmware call and delivery."""
    low_latency: bool = False
    """The backend keeps the host's cores awake."""

    def __post_init__(self) -> None:
        if NAME_PATTERN.fullmatch(self.name) is None:
            raise ProtocolError(f"guest configuration: bad name {self.name!r}")
        if not 1 <= self.nr_cpus <= MAX_CPUS:
            raise ProtocolError(f"guest configuration: nr_cpus is {self.nr_cpus}, not 1..{MAX_CPUS}")
        if not MIN_RAM <= self.ram_size <= MAX_RAM or self.ram_size % 4096:
            raise ProtocolError(f"guest configuration: ram_size is {self.ram_size:#x}")
        if self.hypervisor and self.virtualization:
            raise ProtocolError("guest configuration: EL2 can be the guest's or ours, not both")
        if self.ram_base < 0 or self.ram_base % (2 << 20):
            raise ProtocolError(f"guest configuration: ram_base is {self.ram_base:#x}")

    def to_json(self) -> str:
        """The configuration as `guest.json` holds it."""
        return json.dumps(codec.to_data(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> GuestConfig:
        """Read what `to_json` wrote; every field is checked, unknown ones are refused. Raises `ProtocolError`."""
        if len(text) > MAX_CONFIG:
            raise ProtocolError("guest configuration: more than 1 MiB")
        try:
            data = bounded.loads(text.encode() if isinstance(text, str) else text)
        except ValueError as error:
            raise ProtocolError(f"guest configuration: not JSON ({error})") from None
        return cls.from_data(data)

    @classmethod
    def from_data(cls, data: object) -> GuestConfig:
        """The same, of what JSON's text was."""
        if isinstance(data, dict) and "events" not in data:
            # An older program wrote it.
            data = {("events" if name == "profile" else name): value for name, value in data.items()}
        try:
            return codec.from_data(cls, data)
        except codec.FieldError as error:
            raise ProtocolError(f"guest configuration: {error}") from None
