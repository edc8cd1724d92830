"""The programs that are embedded in the package (`data/NAME.bin`), compared with what they were built as."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError

FOLDER: Final = Path(__file__).resolve().parent / "data"
_NO_GUESTS: Final = ("agent", "kdump", "monitor", "reseed", "victim")
REMEDY: Final = "install the package again, or build them: python -m qemu_sdei.guestbuild"


def guests() -> list[str]:
    """The bare-metal guests among them."""
    return sorted(item.stem for item in FOLDER.glob("*.bin") if item.stem not in _NO_GUESTS)


def read(name: str) -> bytes:
    """The program `name`. Raises `UsageError`: it cannot be read, or is not what `blobs.json` says."""
    path = FOLDER / f"{name}.bin"
    try:
        data = path.read_bytes()
        records = json.loads((FOLDER / "blobs.json").read_bytes())
        # Those of older versions, which saved guests may need, are not built any more, and have no record.
        known = records[name]["sha256"] if name in records else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"embedded program {path} cannot be read ({error}): {REMEDY}") from None
    if known not in (None, hashlib.sha256(data).hexdigest()):
        raise UsageError(f"embedded program {path} is damaged, it is not what blobs.json says: {REMEDY}")
    return data


def digest() -> str:
    """What stands for all that is embedded, the scripts of our own initramfs included: SHA-256 in hex digits."""
    found = hashlib.sha256()
    for file in sorted(FOLDER.iterdir()):
        if file.is_file():
            found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()
