"""Pages of guest RAM that go bad at the host: the guest is told of its own, and of no others; a signal is not lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.backend.control import state_document
from qemu_sdei.backend.loop.host_errors import LIMIT_NS
from qemu_sdei.boot.area import AcpiArea
from qemu_sdei.errors import ProtocolError
from qemu_sdei.monitor import layout
from qemu_sdei.ras.block import parse_block
from qemu_sdei.ras.source import Notify, Source, numbered
from tests.backend.controlled import SHARED, Backend, Peer
from tests.backend.simulated import COUNTER_NS, RAM_BASE, RAM_SIZE, records
from tests.backend.test_crash import Killed, _Kill, tracing
from tests.backend.test_error_sources import Ram, place

PAGE = RAM_BASE + 0x10_0000
AREA = AcpiArea(RAM_BASE)
MEMORY, SLOW = AREA.sources(numbered([Source(name="memory", event=SHARED), Source(name="slow", notify=Notify.POLLED)]))
ROOT = Path(__file__).parents[2]
PARTS = 12
MACHINE = {"cpu": "max", "nr_cpus": 2, "ram_base": RAM_BASE, "ram_size": RAM_SIZE, "window": 0x4020_0000} | {
    "window_version": layout.VERSION,
    "virtualization": False,
}


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    backend = Backend(tmp_path)
    backend.boot()
    prepare(backend)
    return backend


def prepare(backend: Backend) -> None:
    backend.server.guest.machine = dict(MACHINE)
    place(backend.server.errors, Ram(backend), (MEMORY, SLOW))
    # A simulated guest has its tables at the start of RAM, and not below the window.
    backend.server.host_errors.usable = range(PAGE, backend.guest.window.base)


def section(backend: Backend, placed: Any) -> Any:
    (entry,) = parse_block(Ram(backend).take(placed)).entries
    return entry


def test_a_bad_page_is_a_recoverable_memory_error_of_the_source_that_is_ready(backend: Backend) -> None:
    backend.enable(SHARED)
    found = Peer(backend).result(cmd="memory_error", address=PAGE + 0x123)
    assert found == {"page": PAGE, "source": "memory", "vcpu": None, "outcome": "queued"}
    entry = section(backend, MEMORY)
    assert entry.severity == 0, "recoverable"
    assert (entry.section["physical_address"], entry.section["physical_address_mask"]) == (PAGE, 0xFFFF_FFFF_FFFF_F000)
    assert backend.guest.take_kicks() == [0]


def test_where_sdei_is_not_heard_another_source_reports_it(backend: Backend) -> None:
    assert Peer(backend).result(cmd="memory_error", address=PAGE)["source"] == "slow"
    kind, why = Peer(backend).error(cmd="memory_error", address=PAGE)
    assert kind == "state"
    assert "source 'slow': the error before is not read yet" in why
    kind, why = Peer(backend).error(cmd="memory_error", address=PAGE, source="memory")
    assert (kind, "is not registered" in why) == ("state", True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"address": RAM_BASE - 1}, "is no guest RAM: that is 0x40000000 to 0x403fffff"),
        ({"address": RAM_BASE + RAM_SIZE}, "is no guest RAM"),
        ({"address": RAM_BASE + RAM_SIZE - 1}, "page 0x403ff000 is not the guest's: it belongs to the frame window"),
        ({"address": RAM_BASE}, "is not the guest's: it belongs to the firmware's tables"),
        ({"address": PAGE, "source": "else"}, "there is no error source 'else'"),
        ({"address": PAGE, "source": 7}, "source is a text"),
        ({"address": PAGE, "vcpu": 2}, "there is no vCPU 2"),
        ({"host_address": 1}, "host address 0x1 is not in the backend's mapping"),
        ({}, "wants an address or a host_address"),
        ({"address": PAGE, "host_address": 1}, "wants an address or a host_address"),
        ({"address": -1}, "address is a number"),
        ({"address": True}, "address is a number"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    backend: Backend, fields: dict[str, Any], message: str
) -> None:
    before = Ram(backend).read(*AREA.status)
    kind, why = Peer(backend).error(cmd="memory_error", **fields)
    assert kind == "usage"
    assert message in why
    assert Ram(backend).read(*AREA.status) == before


def signalled(backend: Backend, page: int = PAGE, size: int = 4096) -> None:
    """The host's kernel tells of it."""
    from qemu_sdei.backend.loop.memory_signals import address_of

    ram = backend.guest.window.ram
    backend.server.host_errors.signalled(address_of(ram) + page - RAM_BASE, size, False)


def test_what_a_signal_tells_of_waits_until_its_source_is_free(backend: Backend) -> None:
    signalled(backend, size=3 * 4096)
    seen = []
    for _ in range(3):
        backend.server.host_errors.tick()
        seen.append(section(backend, SLOW).section["physical_address"])
    assert seen == [PAGE, PAGE + 0x1000, PAGE + 0x2000]
    backend.server.host_errors.tick()
    assert backend.server.errors.state(SLOW) == "free", "each once"


def test_what_nobody_takes_is_given_up_and_said(backend: Backend, capfd: pytest.CaptureFixture[str]) -> None:
    place(backend.server.errors, Ram(backend), (MEMORY,))
    signalled(backend)
    backend.guest.counter += LIMIT_NS // COUNTER_NS + 1
    backend.server.host_errors.tick()
    assert f"page {PAGE:#x} of guest RAM has gone bad, and was not reported: source 'memory'" in capfd.readouterr().err
    backend.enable(SHARED)
    backend.server.host_errors.tick()
    assert backend.guest.take_kicks() == []


def test_what_waits_outlives_the_backend(tmp_path: Path) -> None:
    """Killed anywhere between two reports: each page is told of, and no other."""
    lines = 0
    for part in range(-1, PARTS):
        at = lines * part // PARTS  # the first one is not killed: it counts the lines
        directory = tmp_path / str(part)
        directory.mkdir()
        kill = _Kill(at if lines else -1)
        backend = Backend(directory)
        backend.boot()
        prepare(backend)
        signalled(backend, size=3 * 4096)
        seen = [section(backend, SLOW).section["physical_address"]]
        try:
            with tracing(kill):
                backend.server.host_errors.tick()
        except Killed:
            backend.server = backend.guest.server()
            prepare(backend)
            backend.server.recover()
        for _ in range(4):
            if backend.server.errors.state(SLOW) != "free":
                seen.append(section(backend, SLOW).section["physical_address"])
            backend.server.host_errors.tick()
        assert sorted(set(seen)) == [PAGE, PAGE + 0x1000, PAGE + 0x2000], at
        assert len(seen) <= 4, "one was told twice at most"
        assert not any(backend.server.journal.bad_pages), at
        lines = lines or kill.lines
        assert kill.over is (part >= 0)


def test_what_waits_goes_along_with_the_guest(tmp_path: Path, backend: Backend) -> None:
    signalled(backend, size=3 * 4096)
    backend.server.pause()
    document = json.loads(json.dumps(state_document.take(backend.server)))
    assert document["bad_pages"] == [[PAGE + 0x1000, 2, 0]]
    directory = tmp_path / "there"
    directory.mkdir()
    there = Backend(directory)
    prepare(there)
    state_document.restore(there.server, document)
    assert there.server.host_errors.snapshot() == document["bad_pages"]
    backend.server.host_errors.leave()
    assert not any(backend.server.journal.bad_pages)
    for wrong in ([PAGE + 1, 1, 0], [RAM_BASE, 1, 0], [backend.guest.window.base - 4096, 2, 0], [1 << 63, 1, 0]):
        with pytest.raises(ProtocolError, match="bad_pages: "):
            state_document.prepare(there.server, document | {"bad_pages": [wrong]})


def test_while_the_guest_is_handed_over_its_ram_is_left_alone(backend: Backend) -> None:
    backend.server.pause()
    before = Ram(backend).read(*AREA.status)
    signalled(backend)
    assert Ram(backend).read(*AREA.status) == before
    backend.server.resume()
    backend.server.host_errors.tick()
    assert section(backend, SLOW).section["physical_address"] == PAGE


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (RAM_BASE + RAM_SIZE - 0x1000, "belongs to the frame window"),
        (RAM_BASE + RAM_SIZE, "memory of the backend's own"),
    ],
)
def test_what_is_not_the_guests_is_said_and_kept(
    backend: Backend, page: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    signalled(backend, page)
    assert said in capfd.readouterr().err
    record = records(backend.server)[-1]
    assert (record["name"], record["outcome"], said in record["why"]) == ("host-error", "failed", True)


SCRIPT = """
import mmap, os, signal
from qemu_sdei.backend.loop.descriptors import Descriptors
from qemu_sdei.backend.loop.memory_signals import BUS_MCEERR_AR, MemorySignals, address_of
from tests.backend.memory_error_signal import tell

descriptors, told = Descriptors(), []
memory = memoryview(mmap.mmap(-1, 1 << 20))
signals = MemorySignals(descriptors, lambda *what: told.append(what))
tell(address_of(memory) + 0x3000)
descriptors.look(0)
tell(address_of(memory) + 0x5000, code=BUS_MCEERR_AR, lsb=21)
descriptors.look(0)
os.kill(os.getpid(), signal.SIGBUS)  # no memory error: said, and nothing done
descriptors.look(0)
print([(address - address_of(memory), size, touched) for address, size, touched in told])
"""


def test_the_kernels_signal_says_which_memory_went_bad() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[(12288, 4096, False), (20480, 2097152, True)]\n"
    assert "SIGBUS with si_code 0 that no memory error has sent" in done.stderr
