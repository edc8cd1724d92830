"""Pictures of guests whose backend answers, is dead, or has left damaged files; without QEMU."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qemu_sdei import rundir
from qemu_sdei.config import GuestConfig
from qemu_sdei.explain.explanation import explain
from qemu_sdei.guest.picture_taking import take_picture
from qemu_sdei.monitor.layout import Kind
from qemu_sdei.monitor.ops import mark_of
from qemu_sdei.sdei.constants import Function
from qemu_sdei.trace.meta import TraceMeta
from tests.backend.controlled import Backend
from tests.backend.simulated import RAM_BASE, read_registers, serve


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    """Event 0 is being handled on vCPU 1, which has unregistered it meanwhile."""
    config = GuestConfig("g", 2, "cortex-a72", 128 << 20, ram_base=RAM_BASE)
    (tmp_path / rundir.CONFIG).write_text(config.to_json())
    backend = Backend(tmp_path)
    backend.server.log.ring.describe(TraceMeta(guest="g", vcpus=2).document())
    backend.boot()
    backend.start_cpu_1()
    for pe in (0, 1):
        backend.enable(0, pe)
    backend.server.trigger(0, 1)
    backend.kick()
    backend.call(1, Function.EVENT_UNREGISTER, 0)
    backend.server.log.ring.commit()
    return backend


def found(directory: Path) -> rundir.Running:
    return rundir.Running("g", directory, None, owned=False)


@contextmanager
def served(backend: Backend) -> Iterator[None]:
    """The backend's loop and the monitor's half run in a thread: who is kicked comes."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            backend.server.descriptors.look(0)
            for pe in backend.guest.take_kicks():
                backend.guest.post(pe, Kind.KICK)
                serve(backend.server)
                frame = backend.guest.window.frames[pe]
                if mark_of(frame):
                    backend.guest.take(pe)
                    read_registers(frame, pe)
                    backend.guest.post(pe, Kind.OPS)
                    serve(backend.server)
                backend.guest.take(pe)
            time.sleep(0.001)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)


def test_a_backend_that_answers(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "control.sock").symlink_to(tmp_path / "s")
    with served(backend):
        picture = take_picture(found(tmp_path))
    assert (picture.known_by, picture.backend) == ("backend", "")
    assert [len(vcpu.seen) for vcpu in picture.vcpus] == [2, 2]
    assert picture.vcpus[1].stays
    assert not any(vcpu.missing for vcpu in picture.vcpus)
    assert picture.vcpus[1].running == (0,)
    assert [record["type"] for record in picture.records].count("boot") == 1
    assert explain(picture).history.complete


def test_a_dead_backend_is_told_of_by_its_journal_and_its_trace(backend: Backend, tmp_path: Path) -> None:
    backend.control.close()
    picture = take_picture(found(tmp_path))
    assert picture.known_by == "journal"
    assert picture.backend
    assert picture.vcpus[1].running == (0,)
    rules = {finding.rule for finding in explain(picture).findings}
    assert rules >= {"backend-does-not-answer", "unregister-pending"}


def test_of_damaged_files_it_says_what_it_can(backend: Backend, tmp_path: Path) -> None:
    backend.control.close()
    for name in (rundir.JOURNAL, rundir.TRACE):
        (tmp_path / name).write_bytes(b"\xff" * 100_000)
    (tmp_path / rundir.CONSOLE_LOG).write_bytes(b"\x1b[31mKernel panic\xff\r\n" * 10_000)
    picture = take_picture(found(tmp_path))
    assert (picture.known_by, picture.vcpus, picture.records) == ("", (), ())
    assert [finding.rule for finding in explain(picture).findings] == ["backend-does-not-answer"]
    (tmp_path / rundir.CONFIG).write_text("{")
    assert take_picture(found(tmp_path)).known_by == ""
