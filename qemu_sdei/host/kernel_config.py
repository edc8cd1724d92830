"""How a kernel is configured: its `.config`, from the file, or out of the kernel itself (CONFIG_IKCONFIG)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qemu_sdei import compressed, untrusted_files
from qemu_sdei.errors import UsageError

_MOST: Final = 4 << 20
"""Bytes of a .config; those of today have 300 KiB."""
_LINES: Final = re.compile(r"^CONFIG_(\w{1,100})=([ym])[ \t\r]*$", re.MULTILINE)
_BEGIN: Final = b"IKCFG_ST"
_END: Final = b"IKCFG_ED"
"""Around the compressed .config in a kernel (kernel/configs.c)."""
_NAME_MARK: Final = "CONFIG_"


@dataclass(frozen=True)
class KernelConfig:
    """Options of one kernel."""

    source: str
    """Where it was read, for messages."""
    values: dict[str, str] = field(default_factory=dict)
    """"y" or "m" by name, without "CONFIG_"; what is not set is not there."""

    @classmethod
    def parse(cls, text: str, source: str) -> KernelConfig:
        """The options of a `.config`; lines that are none are left out."""
        # At once, not line by line: each guest of a test waits for it.
        return cls(source, dict(_LINES.findall(text)))

    @classmethod
    def read(cls, path: Path) -> KernelConfig | None:
        """The options in a file; None: it cannot be read, or is no `.config`."""
        try:
            # What is beside a kernel may be a link, as in /boot.
            data = untrusted_files.read(path.resolve(), _MOST)
        except (OSError, RuntimeError, UsageError):
            return None
        found = cls.parse(data.decode("utf-8", "replace"), str(path))
        return found if found.values else None

    @classmethod
    def inside(cls, image: bytes, source: str) -> KernelConfig | None:
        """The options that a kernel carries in itself, `image` being an uncompressed one; None: it carries none."""
        begin = image.find(_BEGIN)
        end = image.find(_END, begin)
        if begin < 0 or end < 0 or end - begin > _MOST:
            return None
        try:
            data = compressed.decompress("gzip", image[begin + len(_BEGIN) : end], source, _MOST, "configuration")
        except UsageError:
            return None
        found = cls.parse(data.decode("utf-8", "replace"), source)
        return found if found.values else None

    def get(self, name: str) -> str | None:
        """Whether an option is built in ("y"), a module ("m"), or not set (None)."""
        return self.values.get(name.removeprefix(_NAME_MARK))


def beside(kernel: Path) -> Path | None:
    """The file with the configuration of a kernel's file: `config-RELEASE` beside `vmlinuz-RELEASE`, `config` or
    `.config` beside it, or that of the build tree in which it is `arch/arm64/boot/Image`. None: there is none.
    """
    release = kernel.name.partition("-")[2]
    found = [kernel.with_name(name) for name in ((f"config-{release}",) if release else ())]
    found += [kernel.with_name("config"), kernel.with_name(".config")]
    if kernel.parts[-4:-1] == ("arch", "arm64", "boot"):
        found.append(kernel.parents[3] / ".config")
    return next((path for path in found if path.is_file()), None)
