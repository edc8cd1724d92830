"""The conformance guest with scenarios of a user's own in it, compiled with the sources that are shipped."""

from __future__ import annotations

from pathlib import Path

from qemu_sdei.conformance.listing import SOURCES, extra
from qemu_sdei.conformance.runner import Own
from qemu_sdei.errors import UsageError
from qemu_sdei.guestbuild import build_extended


def build(folder: Path, target: Path) -> Own:
    """Compile the scenarios of `folder` (its `scenarios.h` and C files) into a guest, which is written to `target`.

    Raises `UsageError` if the folder has no scenarios, or there is no compiler, or it refuses.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder with scenarios")
    scenarios = extra(folder)
    for scenario in scenarios:
        if scenario.group and not (folder / f"{scenario.group}.c").is_file():
            raise UsageError(
                f"{folder}: scenario {scenario.number} is of group {scenario.group}: no {scenario.group}.c"
            )
    return Own(scenarios, build_extended("conformance", SOURCES, folder, target))
