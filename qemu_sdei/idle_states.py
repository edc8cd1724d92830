"""How the host's cores sleep: what it takes to wake one is most of what an injection, or a call out of the blue, takes.

Linux keeps the cores out of states that take longer to leave than what is written to `/dev/cpu_dma_latency`, as long as
somebody holds that file open (kernel documentation, power/pm_qos_interface).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LATENCY: Final = Path("/dev/cpu_dma_latency")
_SYSTEM: Final = Path("/sys/devices/system/cpu")
_LONGEST: Final = 64


def why_not(path: Path = LATENCY) -> str | None:
    """Why the cores cannot be kept awake; None: they can."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    except OSError as error:
        return f"{path}: {error.strerror}"
    return None


def keep_awake(path: Path = LATENCY) -> int:
    """Keep all cores of the host awake until the descriptor that this returns is closed. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, bytes(4))  # 0 µs, as a 32-bit integer
    except OSError:
        os.close(fd)
        raise
    return fd


def describe(system: Path = _SYSTEM) -> str:
    """In a few words: who decides how deep the cores sleep, and how fast they run."""
    driver = _word(system / "cpuidle/current_driver") or "no idle driver"
    governor = _word(system / "cpuidle/current_governor") or _word(system / "cpuidle/current_governor_ro")
    speed = _word(system / "cpu0/cpufreq/scaling_governor")
    parts = [f"idle: {driver}" + (f" ({governor})" if governor and governor != driver else "")]
    parts.append(f"frequency: {speed}" if speed else "frequency: not ours to set")
    return ", ".join(parts)


def _word(path: Path) -> str:
    """What is in a file of sysfs: one word, or nothing."""
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return text if text.isprintable() else ""
