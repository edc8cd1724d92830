"""Firmware that misbehaves on purpose, in guests: conformance on `tfa` fails as on TF-A; rules that come and go."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from qemu_sdei.conformance import Outcome, run
from qemu_sdei.errors import NotDeliveredError, UsageError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.guest.sdei_client import MAX_NS
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import LIMIT, check_nothing_left, until
from tests.guest.remote import Receiving

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="no qemu-system-aarch64"),
]

TFA_FAILS = {54, 98, 99, 100, 101, 102}
"""Scenarios that fail on Trusted Firmware-A, beside 78, which hangs there."""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_conformance_fails_as_on_tfa() -> None:
    report = run(GuestOptions(smp=4, firmware="tfa"), scenarios="47,48,82,83,54,98,99,100,101,102")
    found = {result.number: result.outcome for result in report.results}
    assert {number for number, outcome in found.items() if outcome is Outcome.FAIL} == TFA_FAILS
    assert {number for number, outcome in found.items() if outcome is Outcome.PASS} == {47, 48, 82, 83}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_of_conformance_on_tfa() -> None:
    report = run(GuestOptions(smp=4, firmware="tfa"), timeout=60)
    assert {result.number for result in report.results if result.outcome is Outcome.FAIL} == TFA_FAILS | {78}


@pytest.mark.timeout(180)
def test_rules_that_come_and_go(tmp_path: Path) -> None:
    """Set at run time; they outlive the backend, a migration and a save; the guest is as ever when they are cleared."""
    options = GuestOptions(kernel="builtin:bench", append="mode=idle smp=2", memory="128M")
    with Guest(options) as guest:
        guest.expect("idle: ready")
        firmware = guest.firmware
        assert firmware.status()["profile"] == "spec"
        firmware.on("EVENT_COMPLETE", vcpu=1).nth(1).late(200_000)
        firmware.on("delivery", event=0, vcpu=1).nth("4..5").loses_event()
        with pytest.raises(UsageError, match="this guest has vCPU"):
            firmware.on("EVENT_SIGNAL").does(to=5)
        late = guest.inject(0, 1, wait=True, timeout=LIMIT)
        assert late.complete_ns is not None
        assert late.complete_ns >= 200_000_000
        assert guest.inject(0, 1, wait=True, timeout=LIMIT).outcome == "completed"
        before = guest.client().hello()["pid"]
        os.kill(before, signal.SIGKILL)
        until("another backend", lambda: guest.client().hello()["pid"] != before)
        assert guest.inject(0, 1, wait=True, timeout=LIMIT).outcome == "completed"
        guest.migrate()
        with pytest.raises(NotDeliveredError, match=r"misbehaves on purpose \(firmware profile own\)"):
            guest.inject(0, 1, wait=True, timeout=0.5)
        assert guest.explain().picture.misbehaves.startswith("profile own; rules 1, 2 acted")
        guest.save(tmp_path / "saved")
    with Guest.saved(tmp_path / "saved") as guest:
        assert [rule["acted"] for rule in guest.firmware.status()["rules"]] == [1, 1]
        guest.inject(0, 1)
        until("the fifth is lost", lambda: guest.firmware.status()["rules"][1]["acted"] == 2)
        assert guest.inject(0, 1, wait=True, timeout=LIMIT).outcome == "completed"
        guest.firmware.on("EVENT_COMPLETE").never()
        with pytest.raises(NotDeliveredError, match="vCPU 1 stays in EL3"):
            guest.inject(0, 1, wait=True, timeout=0.5)
        assert guest.status()["firmware"]["stuck"] == [1]
        assert guest.firmware.clear()["stuck"] == [1], "what has become of it stays"
        assert guest.inject(0, 0, wait=True, timeout=LIMIT).outcome == "completed"
        kinds = [record["type"] for record in guest.trace(200)]
        assert kinds.count("misbehaved") >= 2
        assert "firmware" in kinds


@pytest.mark.timeout(120)
def test_a_profile_goes_along_to_another_host(runtime: Path, tmp_path: Path) -> None:
    """The state document carries it: its file is not there, and the next backend there has it too."""
    file = tmp_path / "board.toml"
    file.write_text('[[rule]]\non = "delivery"\nevent = 0\nvcpu = 1\nnth = "2..3"\nloses = "event"\n')
    options = GuestOptions(name="a", kernel="builtin:bench", append="mode=idle smp=2", memory="128M", firmware=file)

    def lost(guest: Guest) -> None:
        with pytest.raises(NotDeliveredError, match=r"misbehaves on purpose \(firmware profile board\)"):
            guest.inject(0, 1, wait=True, timeout=0.5)

    with Guest(options) as source, Receiving(name="b") as there:
        source.expect("idle: ready")
        assert source.inject(0, 1, wait=True, timeout=LIMIT).outcome == "completed"
        file.unlink()
        source.migrate_to(there.to)
        guest = there.guest
        assert guest.firmware.status()["profile"] == "board"
        lost(guest)
        before = guest.backend_pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        until("another backend", lambda: guest.backend_pid not in (None, before))
        lost(guest)
        assert guest.inject(0, 1, wait=True, timeout=LIMIT).outcome == "completed"
        assert [rule["acted"] for rule in guest.firmware.status()["rules"]] == [2]
        assert guest.explain().picture.misbehaves.startswith("profile board; rule 1 acted")
        with Receiving(name="c") as last:
            guest.migrate_to(last.to)
            last.guest.firmware.clear()
            assert last.guest.firmware.status()["profile"] == "spec"
    check_nothing_left(runtime)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("series", ["6.1", "6.12"])
def test_functions_by_name_in_linux(series: str) -> None:
    """Wherever the kernel lies (KASLR), also after a reboot: who called, and what an event interrupts."""
    with Guest(GuestOptions(series=series, smp=2, client=True)) as guest:
        guest.run("dmesg -n 1")
        firmware = guest.firmware
        firmware.on("CPU_ON").where(caller="sdei_smccc_smc").returns("DENIED")
        firmware.on("CPU_ON").where(caller="__invoke_psci_fn_smc", pc="__arm_smccc_smc").does(marks="by-psci")
        firmware.on("delivery", event=0).where(pc="cpu_do_idle").loses_event()
        with pytest.raises(UsageError, match=r"has no function cpu_do_idel \(did you mean"):
            firmware.on("delivery").where(pc="cpu_do_idel").loses_event()
        for boot in (1, 2):
            client = guest.sdei_client([0], verbose=0)
            before = acted(guest)
            online = "/sys/devices/system/cpu/cpu1/online"
            assert guest.run(f"echo 0 >{online}; echo 1 >{online}").status == 0
            assert acted(guest)[:2] == [0, before[1] + 1]
            client.irqs_off(1, MAX_NS)
            guest.inject(0, 1)
            until("it is handled in the loop", functools.partial(client.count, 0, 1))
            assert client.record(1, 0).irqs_masked
            until("an idle CPU loses one", functools.partial(lost_when_idle, guest, before[2]), 60)
            if boot == 1:
                guest.write("reboot -f\r")
                until("the guest resets itself", lambda: guest.resets, 60)
                guest.wait_shell()
                guest.run("dmesg -n 1")


def acted(guest: Guest) -> list[int]:
    """How often each rule has acted."""
    return [rule["acted"] for rule in guest.firmware.status()["rules"]]


def lost_when_idle(guest: Guest, before: int) -> bool:
    """Whether the last rule has acted more often, after one more event."""
    guest.inject(0, 1)
    return acted(guest)[2] > before


LINUX = {
    "wedge-on-off": ("echo 0 >/sys/devices/system/cpu/cpu1/online; dmesg", "CPU1 may not have shut down cleanly"),
    "kvm7": ("dmesg", "SDEIv1.1 (0x564bcaa9)"),
    "slow": ("dmesg", "SDEIv1.1 (0x4b564d)"),
    "tfa": ("dmesg", "SDEIv1.0 (0x0)"),
    "unmask-early": ("dmesg", "SDEIv1.1 (0x4b564d)"),
    "no-event0": ("dmesg", "SDEIv1.1 (0x4b564d)"),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("profile", LINUX)
def test_linux_on_each(profile: str) -> None:
    """It boots, and sees what is wrong."""
    words, expected = LINUX[profile]
    with Guest(GuestOptions(firmware=profile)) as guest:
        assert expected in guest.run(words).output
        guest.run("true")
        limit = time.monotonic() + LIMIT
        while guest.firmware.status()["profile"] != profile:
            assert time.monotonic() < limit
