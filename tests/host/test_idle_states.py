"""How the host's cores sleep, as is told; and kept awake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qemu_sdei import idle_states
from qemu_sdei.errors import UsageError
from qemu_sdei.vm.machine_checks import check_machine
from qemu_sdei.vm.options import GuestOptions


def test_cores_are_awake_until_it_is_closed(tmp_path: Path) -> None:
    """0 µs, as the kernel takes it: a number of 32 bits, while somebody has the file open."""
    path = tmp_path / "latency"
    path.touch()
    assert idle_states.why_not(path) is None
    fd = idle_states.keep_awake(path)
    assert path.read_bytes() == bytes(4)
    os.close(fd)


def test_what_cannot_be_kept_awake_is_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No such file" in str(idle_states.why_not(tmp_path / "none"))
    with pytest.raises(OSError, match="No such file"):
        idle_states.keep_awake(tmp_path / "none")
    monkeypatch.setattr(idle_states, "why_not", lambda: "/dev/cpu_dma_latency: Permission denied")
    with pytest.raises(UsageError, match=r"kept awake: /dev/cpu_dma_latency: Permission denied; run as root, or leave"):
        check_machine(GuestOptions(kernel="builtin:bench", low_latency=True))


def test_who_decides_how_deep_they_sleep(tmp_path: Path) -> None:
    for name, text in (
        ("cpuidle/current_driver", "intel_idle\n"),
        ("cpuidle/current_governor", "menu\n"),
        ("cpu0/cpufreq/scaling_governor", "powersave\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert idle_states.describe(tmp_path) == "idle: intel_idle (menu), frequency: powersave"
    (tmp_path / "cpuidle/current_driver").write_bytes(b"\x1b[31m\xff" * 100)
    assert idle_states.describe(tmp_path) == "idle: no idle driver (menu), frequency: powersave"
    assert idle_states.describe(tmp_path / "none") == "idle: no idle driver, frequency: not ours to set"
