"""What an owner must know of its guest, as a file in the run directory: for the next owner, should it be killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from qemu_sdei import paths, rundir
from qemu_sdei import untrusted_files as saved_files
from qemu_sdei.errors import UsageError
from qemu_sdei.vm.devices import Devices
from qemu_sdei.vm.options import GuestOptions, rooted
from qemu_sdei.vm.plan import Plan

FORMAT: Final = "qemu-sdei-run"
VERSION: Final = 1
MAX_FILE: Final = 1 << 20


@dataclass(frozen=True)
class Description:
    """A guest that runs."""

    plan: Plan
    nonce: str
    """What the shell's words on the console are known by."""

    def write(self, directory: Path) -> None:
        """Write `run.json` into a run directory, as a whole or not at all. Raises `UsageError`."""
        plan = replace(self.plan, options=rooted(self.plan.options))
        data = {"format": FORMAT, "version": VERSION, "nonce": self.nonce, "plan": _to_json(plan)}
        part = directory / f"{rundir.RUN}.part"
        try:
            part.write_text(json.dumps(data, indent=2) + "\n")
            part.replace(directory / rundir.RUN)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise UsageError(
                f"{directory} cannot be written: {error.strerror}; make room there, or set XDG_RUNTIME_DIR"
            ) from None

    @classmethod
    def read(cls, directory: Path) -> Description:
        """Read what `write` wrote. Raises `UsageError`."""
        what = f"the guest in {directory} cannot be taken over: its {rundir.RUN}"
        try:
            data = json.loads(saved_files.read(directory / rundir.RUN, MAX_FILE))
        except UsageError as error:
            raise UsageError(f"the guest in {directory} cannot be taken over: {error}") from None
        except (ValueError, RecursionError):
            raise UsageError(f"{what} is damaged") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("plan"), dict):
            raise UsageError(f"{what} is damaged")
        if data.get("version") != VERSION:
            raise UsageError(f"{what} is of another version of this program: use the one that it was started with")
        try:
            return cls(_plan(data["plan"]), str(data["nonce"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UsageError(
                f"{what} is of another version of this program, or damaged: use the one that it was started with"
            ) from None


def _to_json(value: object) -> Any:
    """Data classes as objects, paths as absolute strings."""
    if isinstance(value, Path):
        return str(paths.absolute(value))
    if isinstance(value, Mapping):
        return {str(key): _to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(entry) for entry in value]
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}  # type: ignore[arg-type]
    return value


def _plan(data: dict[str, Any]) -> Plan:
    options = _made(GuestOptions, data.pop("options"))
    devices = _made(Devices, data.pop("devices"))
    plan: Plan = _made(Plan, data, options=options, devices=devices)
    return plan


def _made(kind: Any, data: dict[str, Any], **known: Any) -> Any:
    """An object of the data class `kind`, with values of the types that its fields say."""
    values = dict(known)
    for field in fields(kind):
        if field.name in known:
            continue
        value, what = data[field.name], str(field.type)
        if value is not None and what.startswith("Path"):
            value = Path(value)
        elif value is not None and what.startswith("Mapping"):
            value = {key: Path(entry) for key, entry in value.items()}
        elif isinstance(value, list):
            value = tuple(value)
        values[field.name] = value
    if data.keys() - values.keys():
        raise ValueError("unknown fields")
    return kind(**values)
