"""Which CPU models this QEMU has, and the nearest ones to a name that it has not."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from qemu_sdei.errors import UsageError
from qemu_sdei.paths import cache_directory

_TIMEOUT = 20.0
# 32-bit models: no AArch64 kernel runs there. A name that is not listed here is QEMU's to judge.
_AARCH32 = re.compile(r"arm\d+.*|cortex-(a(5|7|8|9|12|15|17)|m\d+|r[4578]f?|r52)|pxa.*|sa11\d\d|ti9.*")

_NO_16K: Final = ("a64fx", "cortex-a53", "cortex-a57", "cortex-a72")
"""Models whose ID_AA64MMFR0_EL1.TGran16 is 0 in QEMU (target/arm/cpu64.c, each model's `id_aa64mmfr0`): Linux of 16 KiB
pages never gets as far as to its first message there. All models have 4 KiB and 64 KiB.
"""


def cpu_models(qemu: Path) -> list[str]:
    """The 64-bit CPU models of `qemu` (`-cpu help`), remembered for as long as that file does not change.

    Empty when QEMU does not say: it then judges the name itself.
    """
    try:
        stat = qemu.resolve().stat()
        key = f"{qemu.resolve()} {stat.st_mtime_ns} {stat.st_size}"
    except OSError:
        return []
    try:
        cache = cache_directory() / "cpu-models.json"
        known = json.loads(cache.read_bytes())
        if isinstance(known, dict) and known.get("qemu") == key and isinstance(known.get("models"), list):
            return [str(model) for model in known["models"]]
    except (OSError, ValueError, RecursionError, UsageError):
        pass
    try:
        out = subprocess.run(
            [str(qemu), "-machine", "virt", "-cpu", "help"],
            capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL, check=False,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    names = re.findall(r"^\s+([A-Za-z0-9][\w.-]*)", out, re.MULTILINE)
    models = [name for name in names if _AARCH32.fullmatch(name) is None]
    if models:
        try:
            cache = cache_directory() / "cpu-models.json"
            cache.parent.mkdir(parents=True, exist_ok=True)
            temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
            temporary.write_text(json.dumps({"qemu": key, "models": models}))
            temporary.replace(cache)
        except (OSError, UsageError):
            pass  # only slower the next time
    return models


def check_cpu(cpu: str, qemu: Path) -> None:
    """Raise `UsageError` with the nearest names when `qemu` has no such 64-bit CPU model.

    Properties after a comma are QEMU's to judge.
    """
    name = cpu.partition(",")[0]
    models = cpu_models(qemu)
    if not models or name in models:
        return
    if _AARCH32.fullmatch(name):
        raise UsageError(f"CPU model {name!r} is a 32-bit one; a 64-bit kernel needs one of: {', '.join(models)}")
    near = difflib.get_close_matches(name.lower(), models, n=3, cutoff=0.5)
    raise UsageError(
        f"unknown CPU model {name!r}; "
        + (f"nearest: {', '.join(near)}" if near else f"this QEMU has: {', '.join(models)}")
    )


def check_page_size(cpu: str, page_size: int | None) -> None:
    """Raise `UsageError` when a kernel whose pages have `page_size` bytes (None: unknown) cannot run on a CPU model."""
    name = cpu.partition(",")[0]
    if page_size == 16384 and name in _NO_16K:
        raise UsageError(
            f"this kernel has pages of 16 KiB, and CPU model {name} has no such pages: use --cpu cortex-a76, "
            "neoverse-n1 or max"
        )
