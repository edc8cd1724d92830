"""What a guest can have grow at its host has a bound: logs, histories, counts, and the memory of owner and backend."""

from __future__ import annotations

import errno
import gc
import os
import re
import signal
import tracemalloc
from pathlib import Path

import pytest

from qemu_sdei import boundedlog
from qemu_sdei.boundedlog import LIMIT
from qemu_sdei.errors import LostGuestError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.rundir import QEMU_LOG
from qemu_sdei.vm.options import DIE_WITH_OWNER, GuestOptions
from tests.guest import growing
from tests.guest.guests import check_nothing_left, command, until
from tests.guest.remote import Receiving

pytestmark = pytest.mark.guest

BACKEND_LIMIT = 64 << 20
"""Bytes of private memory that a backend may take."""
SERVICE = """
from qemu_sdei.smccc import Call, FunctionRange, Owner, Service


class Everything(Service):
    name = "everything"
    ranges = (FunctionRange(Owner.OEM, 0, 0x0FFF),)

    def call(self, call: Call) -> int:
        return call.function & 0xFF
"""


def said(log: Path) -> int:
    """Bytes that were written to a log so far, what was cut included."""
    data = log.read_bytes()
    return len(data) + sum(map(int, re.findall(rb"\[qemu-sdei: (\d+) bytes were cut here\]", data)))


def test_a_guest_that_has_qemu_complain_for_ever(runtime: Path, tmp_path: Path) -> None:
    beside = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", smp=2, memory="128M")
    with Guest(beside) as other, Guest(growing.options(tmp_path, growing.COMPLAINS, qemu_args=growing.RNG)) as guest:
        other.expect("idle: ready", 60)
        log = guest.placement.directory / QEMU_LOG

        def much() -> bool:
            assert log.stat().st_size <= LIMIT
            return said(log) > 4 * LIMIT

        until("QEMU has said much", much, 120)
        assert other.inject(0, 1, wait=True, timeout=30).outcome == "completed"
        assert growing.anonymous(guest.backend_pid) < BACKEND_LIMIT
        assert guest.qemu_pid is not None
        os.kill(guest.qemu_pid, signal.SIGKILL)
        with pytest.raises(LostGuestError, match="Guest says index 65535 is available"):
            guest.wait_off(30)
    check_nothing_left(runtime)


def test_the_same_when_its_owner_is_killed_and_by_the_next_one(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DIE_WITH_OWNER, raising=False)
    kernel = growing.image(tmp_path, growing.COMPLAINS)
    words = ["--name", "g", "--kernel", str(kernel), "--initrd", str(tmp_path / "initrd"), "--smp", "1"]
    more = [f"--qemu-arg={word}" for word in growing.RNG]
    log = runtime / "qemu-sdei" / "g" / QEMU_LOG

    def more_than(size: int) -> bool:
        assert log.stat().st_size <= LIMIT
        return said(log) > size

    with command(runtime, "run", *words, "--memory", "128M", *more) as owner:
        until("it complains", lambda: log.exists() and said(log) > 2 * LIMIT, 120)
        owner.kill()
    try:
        size = said(log)
        until("it complains on without an owner", lambda: more_than(size + 3 * LIMIT), 120)
        with Guest.adopt("g") as guest:
            size = said(log)
            until("and with the next one", lambda: more_than(size + 3 * LIMIT), 120)
            assert growing.anonymous(guest.backend_pid) < BACKEND_LIMIT
    finally:
        command(runtime, "stop", "g").wait(60)
    check_nothing_left(runtime)


def ours() -> int:
    """Bytes that the package and qemu.qmp have allocated and keep: pytest keeps what is logged, among other things."""
    gc.collect()
    files = [tracemalloc.Filter(True, pattern) for pattern in ("*/qemu_sdei/*", "*/qemu/qmp/*")]
    return sum(each.size for each in tracemalloc.take_snapshot().filter_traces(files).statistics("filename"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [600, pytest.param(5000, marks=pytest.mark.slow)])
def test_a_guest_that_resets_for_ever_and_goes_to_another_host(count: int, runtime: Path, tmp_path: Path) -> None:
    with Guest(growing.options(tmp_path, growing.RESETS, name="a")) as guest, Receiving(name="b") as there:
        tracemalloc.start()
        try:
            until("it resets", lambda: guest.reset_count >= count // 2, 900)
            backend = growing.anonymous(guest.backend_pid)
            before, resets = ours(), guest.reset_count
            until("it resets on", lambda: guest.reset_count >= count, 900)
            grown, resets = ours() - before, guest.reset_count - resets
        finally:
            tracemalloc.stop()
        assert grown < 200 * resets, "bytes of this process"
        assert len(guest.resets) == 256
        assert [reset["reason"] for reset in guest.resets] == ["guest-reset"] * 256
        assert growing.anonymous(guest.backend_pid) < min(BACKEND_LIMIT, backend + (4 << 20))
        guest.qmp("stop")
        resets = guest.reset_count
        guest.migrate_to(there.to)
        assert (there.guest.reset_count, len(there.guest.resets)) == (resets, 256)
    check_nothing_left(runtime)


def test_a_guest_that_calls_thousands_of_functions(runtime: Path, tmp_path: Path) -> None:
    service = tmp_path / "everything.py"
    service.write_text(SERVICE)
    with Guest(growing.options(tmp_path, growing.CALLS_ALL, services=(service,))) as guest:
        guest.expect("D", 120)
        status = guest.status()
        calls = status["pes"][0]["calls"]
        assert len(calls) <= 258
        assert calls["other"] >= growing.CALLED - 256
        total = sum(calls.values())
        assert total == status["counts"]["calls"]
        assert growing.anonymous(guest.backend_pid) < BACKEND_LIMIT
        assert guest.backend_pid is not None
        os.kill(guest.backend_pid, signal.SIGKILL)  # the next one counts on
        until("another backend serves", lambda: guest.backend_starts == 2)
        assert sum(guest.status()["pes"][0]["calls"].values()) > growing.CALLED // 2
    check_nothing_left(runtime)


def test_a_log_that_cannot_be_made_is_the_users_to_know(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run directory without a free inode, say: QEMU runs already when its log is opened."""

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(boundedlog, "BoundedLog", full)
    with pytest.raises(UsageError, match=r"qemu\.log cannot be written: No space left on device; make room there"):
        Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M")).start()
    check_nothing_left(runtime)
