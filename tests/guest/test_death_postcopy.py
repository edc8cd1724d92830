"""The owner is killed while its guest is migrated live, by postcopy, or into a directory: whoever adopts it has it go
on, whole, where it is; it is never at two places; the rest goes by itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei.errors import GuestError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import DIE_WITH_OWNER
from tests.guest.guests import Command, command, left, processes, until

pytestmark = pytest.mark.guest

MOVING = """
import hashlib, os, signal, sys
from qemu_sdei import Guest, GuestOptions
from qemu_sdei.vm.supervisor import Supervisor
from qemu_sdei.migration import source
from qemu_sdei.migration.backend_link import BackendLink
source.MAX_BANDWIDTH, source._TO_FETCH = 64 << 20, 0.9  # so that there is something left to fetch, for seconds
when, route, to = sys.argv[1:]
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def report(step):
    if step.phase == when:
        die()
execute, request, inherit = Supervisor.execute, BackendLink.request, Supervisor.inherit
async def executed(self, command, arguments):
    if command == "migrate":
        await execute(self, "migrate-set-parameters", {"max-postcopy-bandwidth": 8 << 20})
    answer = await execute(self, command, arguments)
    if (command, when) in (("migrate-continue", "sent"), ("cont", "runs there")):
        die()
    return answer
async def requested(self, command, **more):
    answer = await request(self, command, **more)
    if (command, when) == ("freeze", "pause"):
        die()
    return answer
async def inherited(self, source):
    await inherit(self, source)
    if when == "committed":
        die()
Supervisor.execute, BackendLink.request, Supervisor.inherit = executed, requested, inherited
guest = Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M", name="g"))
guest.start()
guest.expect("idle: ready")
for n in range(20):
    guest.inject(0, n % 2, wait=True)
content = os.urandom(48 << 20)
os.pwrite(guest.placement.ram.fd, content, 64 << 20)
print(hashlib.sha256(content).hexdigest(), flush=True)
if route == "file":
    guest.save(to, report=report, end=True)
else:
    guest.migrate("g2", route=route, report=report)
"""

IDLE = """
import time
from qemu_sdei import Guest, GuestOptions
guest = Guest(GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M", name="g"))
guest.start()
guest.expect("idle: ready")
print("up", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def runtime(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A world in which guests outlive their owner, but not the test."""
    monkeypatch.delenv(DIE_WITH_OWNER, raising=False)
    yield runtime
    command(runtime, "stop", "--ownerless").wait(30)


def migrate_and_die(when: str, route: str, to: Path = Path("/")) -> str:
    """Run guest 'g' in another process, which is killed. Returns the SHA-256 of what is in a part of its RAM."""
    words = [sys.executable, "-c", MOVING, when, route, str(to)]
    with Command(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        digest = process.stdout.read().decode().strip()
    assert process.returncode == -signal.SIGKILL
    return digest


def listed(runtime: Path) -> list[dict[str, Any]]:
    """What `qemu-sdei list` says."""
    listing = command(runtime, "list", "--json")
    found: list[dict[str, Any]] = json.loads(listing.communicate(timeout=30)[0])["guests"]
    return found


def goes_on(runtime: Path, name: str, digest: str) -> None:
    """The guest is there, alone, and all of it."""
    until("one is left", lambda: len(processes(runtime)) == 2)
    (told,) = listed(runtime)
    assert (told["name"], told["owned"]) == (name, False)
    with Guest.adopt(name) as guest:
        assert guest.qmp("query-status")["status"] == "running"
        counts = guest.status()["counts"]
        assert (counts["delivered"], counts["completed"], counts["rejected"]) == (20, 20, 0)
        for vcpu in range(2):
            assert guest.inject(0, vcpu, wait=True, timeout=20).outcome == "completed"
        assert hashlib.sha256(os.pread(guest.placement.ram.fd, 48 << 20, 64 << 20)).hexdigest() == digest
        printed = guest.console.count("idle: ready")
        guest.reset()
        until("it boots", lambda: guest.console.count("idle: ready") > printed)
        assert guest.migrate("g3").destination == "g3"
    until("all of it ends", lambda: not processes(runtime))
    until("nothing is left", lambda: not left(runtime))


MIGRATIONS = [
    ("ram", "postcopy", "g"),
    ("pause", "postcopy", "g"),
    ("sent", "postcopy", "g"),
    ("restore", "postcopy", "g"),
    ("committed", "postcopy", "g2"),
    ("runs there", "postcopy", "g2"),
    ("fetch", "postcopy", "g2"),
    ("pause", "live", "g"),
    ("sent", "live", "g"),
    ("restore", "live", "g"),
    ("committed", "live", "g2"),
]
NORMAL = [("fetch", "postcopy", "g2")]


@pytest.mark.timeout(100)
@pytest.mark.parametrize(
    ("when", "route", "name"),
    [case if case in NORMAL else pytest.param(*case, marks=pytest.mark.slow) for case in MIGRATIONS],
)
def test_amid_a_live_migration(when: str, route: str, name: str, runtime: Path) -> None:
    digest = migrate_and_die(when, route)
    # While RAM is fetched both QEMUs are there; whoever looks sees one guest, and harms none.
    assert [guest["name"] for guest in listed(runtime)] == [name]
    goes_on(runtime, name, digest)


@pytest.mark.slow
@pytest.mark.timeout(100)
@pytest.mark.parametrize("when", ["stop", "ram"])
def test_amid_a_save(when: str, runtime: Path, tmp_path: Path) -> None:
    """The half-made directory is of no use, and is known for that."""
    goes_on(runtime, "g", migrate_and_die(when, "file", tmp_path / "saved"))
    with pytest.raises(UsageError, match="holds no saved guest"):
        Guest.saved(tmp_path / "saved")


@pytest.mark.timeout(60)
def test_the_source_dies_too(runtime: Path) -> None:
    """Then RAM is lost, and the guest with it: that is said, and it can be ended."""
    migrate_and_die("fetch", "postcopy")
    base = runtime / "qemu-sdei"
    for pid in {*processes(base / "g")} - {*processes(base / "g2")}:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(GuestError, match=r"cannot go on: the other QEMU .* before all of its RAM was fetched"):
        Guest.adopt("g2").start()
    stop = command(runtime, "stop", "g2")
    stop.communicate(timeout=30)
    assert stop.returncode == 0
    until("all of it ends", lambda: not processes(runtime))
    until("nothing is left", lambda: not left(runtime))


@pytest.mark.timeout(60)
def test_the_backend_too_is_killed(runtime: Path) -> None:
    """What asks for the guest is told at once why it stands still, and what to do."""
    with Command([sys.executable, "-c", IDLE], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.kill()
    (guest,) = listed(runtime)
    os.kill(guest["backend_pid"], signal.SIGKILL)
    until("the backend ends", lambda: len(processes(runtime)) == 1)
    for words in (("inject", "g", "--event", "software", "--vcpu", "1"), ("status", "g"), ("regs", "g")):
        asked = command(runtime, *words)
        _, said = asked.communicate(timeout=30)
        assert asked.returncode == 1
        assert said.decode() == (
            "qemu-sdei: guest 'g' has lost its backend and has no owner to start another: it will wait at its next "
            "call until `qemu-sdei attach g`\n"
        )
    listing = command(runtime, "list")
    assert b"g has no backend either: its next call waits" in listing.communicate(timeout=30)[0]
    with Guest.adopt("g") as adopted:
        assert adopted.inject(0, 1, wait=True, timeout=20).outcome == "completed"
