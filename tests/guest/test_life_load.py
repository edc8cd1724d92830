"""Events at a high rate on a Linux that is at work: none is lost or doubled, and nobody's registers change."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.sdei_client import SdeiClient
from qemu_sdei.vm.options import GuestOptions
from tests.guest import programs
from tests.guest.guests import until
from tests.guest.load import EventLoad

pytestmark = pytest.mark.guest

EVENTS = (0, 0x100, 0x103)
"""Two normal ones and a critical one, all private."""
RATE = 1000
"""Events a second that each vCPU is offered."""
TROUBLE = re.compile(r"\b(BUG|Oops|WARNING|Call trace|stall|lockup|unsafe|Internal error|segfault|unhandled)\b")
IRQS_OFF_NS = 3_000_000
SLOW = 120
"""Seconds for a command of a shell that has everything else beside it."""

MEMORY = (
    "while [ ! -e /tmp/stop ]; do dd if=/dev/zero of=/tmp/fill bs=1M count=48; md5sum /tmp/fill; rm /tmp/fill; done"
)
DISK = (
    "while [ ! -e /tmp/stop ]; do "
    "dd if=/dev/zero of=/dev/vda bs=64k count=128 conv=fsync; dd if=/dev/vda of=/dev/null bs=64k; done"
)
MASKED = (
    "while [ ! -e /tmp/stop ]; do for c in $(seq 0 $(($(nproc) - 1))); do "
    f"echo irqs-off $c {IRQS_OFF_NS} >/proc/sdei_test/control; done; done"
)


class Worker:
    """Processes in the guest that work in the background; each says on a file of its own how it ended."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.names: list[str] = []

    def start(self, name: str, command: str, cpu: int | None = None) -> None:
        pin = "" if cpu is None else f"taskset {1 << cpu:x} "
        work = f"{pin}sh -c '{command}' >/dev/null 2>&1 & wait $!; echo $? >/tmp/{name}.end"
        self.guest.run(f"(({work}) &)")
        self.names.append(name)

    def ended(self) -> str:
        """What has ended, with its status; "" while all are at work."""
        return self.guest.run("for f in /tmp/*.end; do [ ! -e $f ] || echo $f $(cat $f); done", timeout=SLOW).output


def check_load(series: str, cpus: int, seconds: float, tmp_path: Path) -> None:
    (tmp_path / "spin32").write_bytes(programs.spin_a32())
    (tmp_path / "disk").write_bytes(bytes(16 << 20))
    programs.regcheck(tmp_path / "regcheck")
    for name in ("spin32", "regcheck"):
        (tmp_path / name).chmod(0o755)
    options = GuestOptions(
        series=series,
        smp=cpus,
        client=True,
        drives=[f"{tmp_path}/disk"],
        files={f"/bin/{name}": tmp_path / name for name in ("spin32", "regcheck")},
    )
    with Guest(options) as guest:
        guest.run("dmesg -n 1")
        client = guest.sdei_client(EVENTS, verbose=0, records=512)
        workers = Worker(guest)
        for cpu in range(cpus):
            workers.start(f"regcheck{cpu}", "exec regcheck", cpu)
            workers.start(f"spin32{cpu}", "exec spin32", cpu)
        workers.start("memory", MEMORY)
        workers.start("disk", DISK)
        workers.start("masked", MASKED)
        with EventLoad(guest, EVENTS, cpus, 1 / RATE / cpus) as load:
            states: set[int] = set()
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, 10))
                states |= interrupted(guest)
            assert workers.ended() == ""
        check_counts(guest, client, load, cpus)
        assert workers.ended() == "", "a program found a register changed (its status), or a load stopped"
        guest.run("touch /tmp/stop; killall regcheck spin32", timeout=60)
        check_where(states)
        log = guest.run("dmesg").output
        assert not TROUBLE.search(log), log


def check_counts(guest: Guest, client: SdeiClient, load: EventLoad, cpus: int) -> None:
    """What the host's side had accepted, what the firmware delivered, and what the kernel handled are the same."""
    assert load.delivered > 100 * cpus
    assert not load.refused

    def quiet() -> bool:
        status = guest.status()
        return not any(i["pending"] or i["running"] for event in status["events"] for i in event["instances"])

    until("the last event is handled", quiet)
    handled = {(entry.event, entry.cpu): entry for entry in client.counts()}
    assert {key: entry.count for key, entry in handled.items()} == load.queued
    assert all(entry.returned == entry.count for entry in handled.values())
    status = guest.status()
    counts = status["counts"]
    triggers = {
        (event["event"], instance["pe"]): instance["triggers"]
        for event in status["events"]
        for instance in event["instances"]
        if (event["event"], instance["pe"]) in load.queued
    }
    assert triggers == {
        key: {"accepted": queued + load.merges[key], "merged": load.merges[key], "dropped": 0, "delivered": queued}
        for key, queued in load.queued.items()
    }
    assert counts["accepted"] == load.delivered + load.merged
    print(f"{counts['accepted']} accepted, {counts['merged']} merged, {counts['completed']} completed")
    assert counts["delivered"] == counts["completed"] == load.delivered
    assert counts["rejected"] == 0
    assert client.dumps().suppressed == load.delivered


def interrupted(guest: Guest) -> set[int]:
    """PSTATE of what the newest events found."""
    records = guest.run(
        "awk '{ for (i = 1; i < NF; i += 2) if ($i == \"pstate\") n[$(i + 1)]++ } END { for (p in n) print p, n[p] }' "
        "/proc/sdei_test/records",
        timeout=SLOW,
    ).output
    return {int(word, 0) for word, _ in (line.split() for line in records.splitlines())}


def check_where(states: set[int]) -> None:
    """The load did what it is for: events found user space of both kinds, and code with interrupts off."""
    assert any(state & 0x1F == 0 for state in states), "no event found regcheck"
    assert any(state & 0x10 for state in states), "no event found AArch32"
    assert any(state & 0xC and state & 1 << 7 for state in states), "no event found interrupts masked"


@pytest.mark.slow
def test_a_thousand_events_a_second_under_load(tmp_path: Path) -> None:
    check_load("6.12", 2, 4, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("series", "cpus", "seconds"), [("6.1", 2, 180), ("6.12", 2, 180), ("6.12", 4, 90)])
def test_a_thousand_events_a_second_for_minutes(series: str, cpus: int, seconds: float, tmp_path: Path) -> None:
    check_load(series, cpus, seconds, tmp_path)
