"""The QEMU command line, and CPU models by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from qemu_sdei import paths
from qemu_sdei.errors import UsageError
from qemu_sdei.host import cpu_models
from qemu_sdei.vm.qemu_command import command_line, fd_wiring

WIRING = fd_wiring("/run/monitor.bin", ram=3, doorbell=4, console=5, qmp=6)


def words(*, virtualization: bool = False, reboot: bool = True, extra: tuple[str, ...] = ()) -> list[str]:
    return command_line(
        "qemu",
        nr_cpus=3,
        ram_size=512 << 20,
        cpu="max",
        virtualization=virtualization,
        wiring=WIRING,
        reboot=reboot,
        extra=extra,
    )


def value(line: list[str], option: str) -> list[str]:
    return [line[n + 1] for n, word in enumerate(line) if word == option]


def test_the_machine_is_what_the_monitor_needs() -> None:
    line = words()
    assert value(line, "-machine") == ["virt,secure=on,gic-version=3,memory-backend=ram"]
    assert value(line, "-bios") == ["/run/monitor.bin"]
    assert value(line, "-smp") == ["3"]
    assert value(line, "-m") == ["512M"]
    assert value(line, "-object") == ["memory-backend-file,id=ram,share=on,size=512M,mem-path=/proc/self/fd/3"]


def test_the_console_comes_before_the_doorbell() -> None:
    assert value(words(), "-serial") == ["chardev:console", "chardev:doorbell"]


def test_el2_is_there_only_on_demand() -> None:
    assert "virtualization=on" in value(words(virtualization=True), "-machine")[0]
    assert "virtualization" not in value(words(), "-machine")[0]


def test_a_reset_ends_qemu_only_where_it_shall() -> None:
    assert "-no-reboot" in words(reboot=False)
    assert "-no-reboot" not in words(reboot=True)


def test_the_users_own_options_come_last() -> None:
    assert words(extra=("-device", "virtio-rng-pci"))[-2:] == ["-device", "virtio-rng-pci"]


@pytest.fixture
def fake_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that answers `-cpu help`, and counts how often it is asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    qemu = tmp_path / "qemu-system-aarch64"
    qemu.write_text(
        f"#!/bin/sh\necho x >>{tmp_path}/asked\necho Available CPUs:\n"
        "for m in arm926 cortex-a15 cortex-a53 cortex-a72 cortex-m3 cortex-r5f max neoverse-n1 pxa255\n"
        'do echo "  $m"; done\n'
    )
    qemu.chmod(0o755)
    return qemu


def test_only_64_bit_models_are_offered_and_qemu_is_asked_once(fake_qemu: Path) -> None:
    assert cpu_models.cpu_models(fake_qemu) == ["cortex-a53", "cortex-a72", "max", "neoverse-n1"]
    assert cpu_models.cpu_models(fake_qemu) == ["cortex-a53", "cortex-a72", "max", "neoverse-n1"]
    assert (fake_qemu.parent / "asked").read_text() == "x\n"


def test_another_qemu_is_asked_again(fake_qemu: Path) -> None:
    cpu_models.cpu_models(fake_qemu)
    fake_qemu.write_text(fake_qemu.read_text().replace("max", "max cortex-a710"))
    assert "cortex-a710" in cpu_models.cpu_models(fake_qemu)


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"qemu": 1}'])
def test_a_damaged_cache_is_made_anew(fake_qemu: Path, garbage: str) -> None:
    cpu_models.cpu_models(fake_qemu)
    (paths.cache_directory() / "cpu-models.json").write_text(garbage)
    assert "max" in cpu_models.cpu_models(fake_qemu)


def test_an_unknown_model_names_the_nearest(fake_qemu: Path) -> None:
    cpu_models.check_cpu("cortex-a72", fake_qemu)
    cpu_models.check_cpu("max,pauth=off", fake_qemu)
    with pytest.raises(UsageError, match=r"unknown CPU model 'cortex-a27'; nearest: cortex-a72"):
        cpu_models.check_cpu("cortex-a27", fake_qemu)
    with pytest.raises(UsageError, match="this QEMU has: cortex-a53"):
        cpu_models.check_cpu("z80", fake_qemu)
    with pytest.raises(UsageError, match="32-bit"):
        cpu_models.check_cpu("cortex-a15", fake_qemu)


def test_a_qemu_that_says_nothing_judges_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cpu_models.check_cpu("anything", Path("/bin/true"))
    cpu_models.check_cpu("anything", Path("/nonexistent"))
