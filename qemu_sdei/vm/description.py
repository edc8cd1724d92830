"""What an owner must know of its guest, as a file in the run directory: for the next owner, should it be killed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from qemu_sdei import bounded, codec, rundir
from qemu_sdei import untrusted_files as saved_files
from qemu_sdei.errors import UsageError
from qemu_sdei.vm.options import rooted
from qemu_sdei.vm.plan import Plan
from qemu_sdei.vm.travelling import renamed

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
        data = {"format": FORMAT, "version": VERSION, **codec.to_data(replace(self, plan=plan))}
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
            data = bounded.loads(saved_files.read(directory / rundir.RUN, MAX_FILE))
        except UsageError as error:
            raise UsageError(f"the guest in {directory} cannot be taken over: {error}") from None
        except ValueError:
            raise UsageError(f"{what} is damaged") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("plan"), dict):
            raise UsageError(f"{what} is damaged")
        if data.get("version") != VERSION:
            raise UsageError(f"{what} is of another version of this program: use the one that it was started with")
        try:
            about = {name: value for name, value in data.items() if name not in ("format", "version")}
            about["plan"] = data["plan"] | {"options": renamed(data["plan"].get("options"))}
            return codec.from_data(cls, about, complete=True)
        except codec.FieldError:
            raise UsageError(
                f"{what} is of another version of this program, or damaged: use the one that it was started with"
            ) from None
