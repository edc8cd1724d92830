"""Events on each CPU, whatever it is doing. They need the client module, which registers them."""

from __future__ import annotations

import pytest

from qemu_sdei import Guest
from qemu_sdei.guest.sdei_client import SdeiClient

pytestmark = [
    pytest.mark.sdei_needs("linux", "shell", "client", config="CONFIG_ARM_SDE_INTERFACE"),
    pytest.mark.sdei_options(smp=2),
]


@pytest.fixture
def client(guest: Guest) -> SdeiClient:
    """The loaded module, with the software event 0 registered and enabled."""
    return guest.sdei_client([0], verbose=0)


def handled_on_all(guest: Guest, client: SdeiClient) -> None:
    before = [client.count(event=0, cpu=cpu) for cpu in range(2)]
    for cpu in range(2):
        assert guest.inject(0, cpu, wait=True, timeout=30).outcome == "completed"
    assert [client.count(event=0, cpu=cpu) for cpu in range(2)] == [count + 1 for count in before]


def test_idle(guest: Guest, client: SdeiClient) -> None:
    """An event interrupts an idle CPU (WFI), each of them."""
    handled_on_all(guest, client)


def test_user_space(guest: Guest, client: SdeiClient) -> None:
    """An event interrupts a busy process, which goes on."""
    guest.run("(taskset 2 sh -c 'n=0; while [ $n -lt 100000000 ]; do n=$((n+1)); done') & echo $! >/tmp/pid")
    for _ in range(20):
        assert guest.inject(0, 1, wait=True, timeout=30).outcome == "completed"
    assert guest.run("kill $(cat /tmp/pid)").status == 0, "it was still there"


def test_interrupts_off(guest: Guest, client: SdeiClient) -> None:
    """An event interrupts a CPU that has its interrupts off."""
    client.irqs_off(1, 5_000_000_000)
    assert guest.inject(0, 1, wait=True, timeout=30).outcome == "completed"
    record = client.record(cpu=1, event=0)
    assert record.irqs_masked


def test_signal(guest: Guest, client: SdeiClient) -> None:
    """A CPU sends event 0 to another one and to itself."""
    for cpu in range(2):
        client.signal(cpu)
    client.flush()
    assert client.count(event=0) == 2


def test_masked(guest: Guest, client: SdeiClient) -> None:
    """An event waits while its CPU is masked, and comes then."""
    client.mask(1)
    guest.inject(0, 1)
    assert client.count(event=0, cpu=1) == 0
    client.unmask(1)
    client.flush()
    assert client.count(event=0, cpu=1) == 1


def test_hotplug(guest: Guest, client: SdeiClient) -> None:
    """A CPU that went off and came back takes events again."""
    for _ in range(3):
        assert guest.run("cd /sys/devices/system/cpu/cpu1; echo 0 >online && echo 1 >online", 60).status == 0
        handled_on_all(guest, client)


def test_reboot(guest: Guest, client: SdeiClient) -> None:
    """A reboot under events: the next boot finds none of them."""
    guest.inject(0, 1, wait=True, timeout=30)
    guest.reset()
    guest.wait_shell()
    assert not any(i["registered"] for event in guest.status()["events"] for i in event["instances"])
    handled_on_all(guest, guest.sdei_client([0], verbose=0))
