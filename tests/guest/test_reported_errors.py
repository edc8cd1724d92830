"""Hardware errors as Linux takes them: by each kind of source, while the backend dies, and of the boot before."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from qemu_sdei.acpi import aml
from qemu_sdei.acpi.tables import RawTable
from qemu_sdei.cli import main
from qemu_sdei.errors import NotDeliveredError, UsageError
from qemu_sdei.guest.control_client import ControlClient
from qemu_sdei.guest.guest import Guest
from qemu_sdei.ras import Firmware, Memory
from qemu_sdei.ras.block import block
from qemu_sdei.ras.entry import entry
from qemu_sdei.vm.options import GuestOptions
from tests.guest.acpi_guest import digests, seen_by_linux
from tests.guest.guests import until

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]

EVENTS = """
[[event]]
number = 0
name = "software"
signalable = true

[[event]]
number = 0x324
name = "memory-error"
type = "shared"

[[event]]
number = 0x40000001
name = "cpu-error"
priority = "critical"

[[source]]
name = "memory"
event = 0x324
block = 65536
id = 7

[[source]]
name = "cpu"
type = "ghes"
event = 0x40000001
block = 200

[[source]]
name = "slow"
notify = "polled"
poll = 100

[[source]]
name = "line"
notify = "interrupt"
interrupt = 100

[[source]]
name = "abort"
notify = "sea"

[[source]]
name = "off"
notify = "polled"
enabled = false
"""
HEST_IDS = {"memory": 7, "cpu": 0, "slow": 1, "line": 2, "abort": 3, "off": 4}


def error(address: int, severity: str = "corrected") -> bytes:
    return block([entry(Memory(physical_address=address, memory_error_type=3), severity)]).pack()


def free(client: ControlClient, name: str) -> bool:
    return any(each["state"] == "free" for each in client.ras_sources() if each["name"] == name)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("series", ["6.1", pytest.param("6.12", marks=pytest.mark.slow)])
def test_errors_reach_linux_by_each_source_and_the_next_boot_hears_of_a_fatal_one(series: str, tmp_path: Path) -> None:
    events, mine, before = tmp_path / "events.toml", tmp_path / "mine.aml", tmp_path / "error"
    events.write_text(EVENTS)
    table = RawTable.build("SSDT", aml.scope(r"\_SB", aml.method("QTST", 0)), revision=2).to_bytes()
    mine.write_bytes(table)
    before.write_text(error(0x4200_0000, "fatal").hex())
    options = GuestOptions(
        series=series,
        ras=True,
        events=events,
        acpi_tables=[mine],
        boot_error=before,
        append="panic=1",
        on_panic="continue",
    )
    with Guest(options) as guest:
        guest.wait_shell()
        guest.run("dmesg -n 1")
        client = guest.client()
        log = guest.run("dmesg").output
        assert "GHES: APEI firmware first mode is enabled by APEI bit and WHEA _OSC." in log
        assert "BERT: Error records from previous boot:" in log
        assert "physical_address: 0x0000000042000000" in log
        bound = guest.run("ls /sys/bus/platform/drivers/GHES").output.split()
        assert {name for name in bound if name.startswith("GHES.")} == {
            f"GHES.{number}" for name, number in HEST_IDS.items() if name != "off"
        }, "Linux has taken each source but the one that is disabled"
        made = tmp_path / "hest"
        assert main(["tables", "--machine", "--events", str(events), "--table", "hest", "-o", str(made)]) == 0
        assert seen_by_linux(guest)["HEST"] == digests({"HEST": made.read_bytes()})["HEST"]
        tables = guest.run("cd /sys/firmware/acpi/tables; cat SSDT? | md5sum; cat SSDT3 | wc -c").output.split()
        assert tables[-1] == str(len(table)), "the user's SSDT stands behind ours"

        sources = {each["name"]: each for each in client.ras_sources()}
        assert {name: each["id"] for name, each in sources.items()} == HEST_IDS
        assert {name: each["state"] for name, each in sources.items()} == dict.fromkeys(HEST_IDS, "free")
        assert all(sources[name]["ready"] for name in ("memory", "cpu", "slow"))
        assert "disabled" in sources["off"]["reason"]
        for n, name in enumerate(("memory", "cpu", "slow")):
            waits = name != "slow"
            done = client.ras_report(name, error(0x5000_0000 + n * 4096), wait=waits, timeout=30)
            assert done["outcome"] == ("completed" if waits else "queued")
            until("the error is read", lambda name=name: free(client, name))
        log = guest.run("dmesg").output
        for n, name in enumerate(("memory", "cpu")):
            assert f"Hardware error from APEI Generic Hardware Error Source: {HEST_IDS[name]}" in log
            assert f"physical_address: 0x{0x5000_0000 + n * 4096:016x}" in log

        with pytest.raises(UsageError, match="source 'cpu' takes 20 to 200"):
            client.ras_report("cpu", error(0) + bytes(100), raw=True)
        guest.run("echo GHES.0 >/sys/bus/platform/drivers/GHES/unbind")
        with pytest.raises(NotDeliveredError, match=r"source 'cpu': event 0x40000001 .* is not registered"):
            client.ras_report("cpu", error(0))

        # Nobody reads it: it goes along, and is read there.
        guest.run("echo GHES.1 >/sys/bus/platform/drivers/GHES/unbind")
        client.ras_report("slow", error(0x5400_0000))
        guest.migrate()
        (slow,) = (each for each in client.ras_sources() if each["name"] == "slow")
        assert (slow["state"], slow["ready"]) == ("unread", True)
        guest.run("echo GHES.1 >/sys/bus/platform/drivers/GHES/bind")
        until("the error is read", lambda: free(client, "slow"))

        # A backend that died before it told of what it had written.
        starts = guest.backend_starts
        client.ras_report("memory", error(0x5100_0000), wait=True, timeout=30)
        assert guest.backend_pid is not None
        os.kill(guest.backend_pid, signal.SIGKILL)
        until("a new backend serves", lambda: guest.backend_starts > starts)
        assert client.ras_report("memory", error(0x5200_0000), wait=True, timeout=30)["outcome"] == "completed"
        assert {each["name"] for each in guest.status()["sources"]} == set(HEST_IDS)

        # This one the kernel is not told of: as if a watchdog had said that it hangs.
        client.ras_keep(block([entry(Firmware(firmware_error_record_type=2), "fatal", fru_text="watchdog")]).pack())
        client.ras_report("memory", error(0x4100_0000, "fatal"))
        until("the guest panics and is reset", lambda: guest.resets)
        guest.wait_shell()
        guest.run("dmesg -n 1")
        log = guest.run("dmesg").output
        assert "BERT: Error records from previous boot:" in log
        assert "physical_address: 0x0000000041000000" in log
        assert "fru_text: watchdog" in log
        assert "physical_address: 0x0000000042000000" not in log, "that was before the first boot"
        assert client.ras_report("memory", error(0x5300_0000), wait=True, timeout=30)["outcome"] == "completed"
