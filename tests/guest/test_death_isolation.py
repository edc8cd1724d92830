"""Guests of one user, and the files and sockets of a guest: nobody else's, and no guest's business is another's."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import check_nothing_left, until
from tests.guest.load import EventLoad

pytestmark = pytest.mark.guest


def test_files_and_sockets_are_the_users_alone(runtime: Path, tmp_path: Path) -> None:
    old = os.umask(0)  # a user's own choice must not open them
    try:
        options = GuestOptions(
            kernel="builtin:bench", append="mode=idle smp=2", memory="128M", name="g", memory_path=tmp_path
        )
        with Guest(options) as guest:
            guest.expect("idle: ready")
            guest.migrate("g2")
            base = runtime / "qemu-sdei"
            for directory in (base, base / "g2"):
                assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            sockets = {path.name for path in (base / "g2").iterdir() if path.is_socket()}
            assert {"control.sock", "owner.sock", "doorbell.sock", "console.sock", "qmp.sock"} <= sockets
            for name in (*sockets, "journal", "lock", "qemu.lock", "backend.lock"):
                info = (base / "g2" / name).stat()
                assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o600, os.getuid()), name
            assert stat.S_IMODE(os.fstat(guest.placement.ram.fd).st_mode) == 0o600
            assert list(tmp_path.iterdir()) == [], "RAM has no name"
            guest.save(tmp_path / "saved")
            for file in ((tmp_path / "saved"), *(tmp_path / "saved").iterdir()):
                assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600), file
    finally:
        os.umask(old)
    check_nothing_left(runtime)


def test_a_hostile_guest_beside_a_good_one(runtime: Path) -> None:
    """It makes calls that cannot be, and its window is overwritten again and again; the other's events all come."""
    good = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M", name="good")
    bad = GuestOptions(kernel="builtin:bench", append="mode=fuzz seed=5 count=400000 smp=2", memory="128M", name="bad")
    with Guest(good) as first, Guest(bad) as second:
        first.expect("idle: ready")
        size = second.placement.plan.ram_size
        with EventLoad(first, (0,), 2) as load, mmap.mmap(second.placement.ram.fd, size) as ram:
            for turn in range(30):
                for start in range(size - (2 << 20), size, 4096):
                    ram[start : start + 64] = bytes([turn, 0xFF, 2, 0, 0, 0, 0, turn]) * 8
                first.inject(0, turn % 2, wait=True, timeout=20)
        until("all are delivered", lambda: first.status()["counts"]["completed"] >= load.delivered)
        first.inject(0, 0, wait=True, timeout=20)
        first.inject(0, 1, wait=True, timeout=20)
        counts = first.status()["counts"]
        assert counts["rejected"] == 0
        assert counts["delivered"] == counts["completed"]
        assert load.delivered <= counts["completed"] <= load.delivered + 32, "those of this test may have merged"
        assert first.backend_starts == 1
    check_nothing_left(runtime)
