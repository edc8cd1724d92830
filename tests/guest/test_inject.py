"""`qemu-sdei inject` as a user runs it, with events that the guest does not take at once: what it says, and when."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_sdei import Guest, GuestOptions
from qemu_sdei.errors import UsageError
from qemu_sdei.host import client_module as module
from qemu_sdei.host.debian import DebianCache
from tests.guest.guests import command, runtime_directory, until

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def guest(linux: Path) -> Iterator[Guest]:
    """A Linux guest `inject` whose client module handles events 0 and 0x100."""
    try:
        built = module.build(DebianCache(), DebianCache().kernel())
    except UsageError as error:
        pytest.skip(str(error))
    with runtime_directory() as runtime, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        with Guest(GuestOptions(kernel=linux, name="inject", files={"m.ko": built})) as running:
            assert running.run("insmod /m.ko events=0,0x100").status == 0
            yield running


def tell(guest: Guest, what: str) -> None:
    assert guest.run(f"echo {what} >/proc/sdei_test/control").status == 0


def inject(guest: Guest, *words: str) -> tuple[int, str, str]:
    runtime = guest.client().path.parent.parent.parent
    with command(runtime, "inject", "inject", "--vcpu", "1", *words) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


WAIT = ("--wait", "--timeout", "1")
LONG = ("--wait", "--timeout", "50")


@pytest.mark.smoke
def test_a_masked_vcpu(guest: Guest) -> None:
    tell(guest, "mask 1")
    code, _, err = inject(guest, "--event", "0", *WAIT)
    assert code == 1
    assert err == (
        "qemu-sdei: event 0x0 on vCPU 1 was not completed within 1 s: event 0x0 (software) waits: PE 1 is masked\n"
    )
    # It stays pending, and one more is the same one.
    code, out, _ = inject(guest, "--event", "0")
    assert (code, "merged with one that was pending (event 0x0 (software) waits: PE 1 is masked)" in out) == (0, True)
    # An NMI goes by the same event: AGDI's is not registered.
    found = guest.nmi(1)
    assert (found.by, found.outcome, found.reason) == (
        "software",
        "merged",
        "event 0x0 (software) waits: PE 1 is masked",
    )
    tell(guest, "unmask 1")
    assert inject(guest, "--event", "0", *LONG)[0] == 0
    assert guest.nmi().vcpu == 0


def test_a_disabled_event(guest: Guest) -> None:
    tell(guest, "disable 0x100")
    code, _, err = inject(guest, "--event", "private-a", *WAIT)
    assert (code, "event 0x100 (private-a) is registered but disabled" in err) == (1, True)
    tell(guest, "enable 0x100")
    assert inject(guest, "--event", "private-a", *LONG)[0] == 0


def test_behind_another_one(guest: Guest) -> None:
    tell(guest, "run-for 1500000000")
    # Not by the command: on a busy machine it may start so slowly that the handler's time is over.
    guest.inject(0x100, 1)
    until("its handler runs", lambda: guest.status()["pes"][1]["running"])
    behind, again = guest.inject(0, 1), guest.inject(0x100, 1)
    assert behind.reason == "event 0x0 (software) waits behind event 0x100 (private-a), whose handler runs on PE 1"
    assert again.reason == "event 0x100 (private-a) waits for its own handler, which still runs on PE 1"
    tell(guest, "run-for 0")
    assert inject(guest, "--event", "0x100", *LONG)[0] == 0


def test_the_rate_is_held_and_summed_up(guest: Guest) -> None:
    answer = json.loads(inject(guest, "--event", "0", "--count", "11", "--rate", "10", *LONG, "--json")[1])
    assert answer["outcomes"] == {"completed": 11}
    # Ten gaps of a tenth of a second: never faster, whatever the machine does.
    assert answer["seconds"] >= 1
    _, out, _ = inject(guest, "--event", "0", "--count", "20")
    found = re.search(r"20 injected in [\d.]+ s \(\d+/s\): (.*)", out)
    assert found
    assert sum(int(number) for number in re.findall(r"\d+", found[1])) == 20
