"""Linux's GHES driver as a client of SDEI: it registers the event of the HEST by itself (conformance scenario 90)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from qemu_sdei.errors import NotDeliveredError
from qemu_sdei.guest.guest import Guest
from qemu_sdei.vm.options import GuestOptions
from tests.guest.guests import until
from tests.guest.test_cpus import TROUBLE

pytestmark = [pytest.mark.guest, pytest.mark.usefixtures("linux", "runtime")]

EVENT = 0x324
DRIVER = "/sys/bus/platform/drivers/GHES"


def instance(guest: Guest) -> dict[str, Any]:
    (event,) = (event for event in guest.status()["events"] if event["event"] == EVENT)
    return dict(event["instances"][0]) if event["instances"] else {"registered": False}


def test_an_error_event_is_handled_and_the_driver_can_be_removed_at_any_moment() -> None:
    """Nothing is in the status block, which the driver says; a removal under events waits for handlers that run."""
    refused = []
    stop = threading.Event()

    def storm(guest: Guest) -> None:
        client = guest.client()
        while not stop.is_set():
            try:
                client.inject(EVENT, 0)
            except NotDeliveredError as error:
                refused.append(str(error))

    with Guest(GuestOptions(series="6.12", ras=True)) as guest:
        guest.wait_shell()
        guest.run("dmesg -n 1")
        assert instance(guest)["registered"]
        assert instance(guest)["enabled"]
        assert guest.inject(EVENT, 1, wait=True).outcome == "completed"
        assert f"sdei: event {EVENT} on CPU " in guest.run("dmesg").output

        thread = threading.Thread(target=storm, args=(guest,))
        thread.start()
        try:
            until("events that come", lambda: guest.status()["counts"]["delivered"] > 5)
            assert guest.run(f"echo GHES.0 >{DRIVER}/unbind").status == 0
            until("an event that is refused", lambda: refused)
            assert not instance(guest)["registered"]
        finally:
            stop.set()
            thread.join(30)
        bound = guest.run(f"echo GHES.0 >{DRIVER}/bind")
        log = guest.run("dmesg").output
        if "Failed to unregister ghes" in log:
            # Its handler ran at the first EVENT_UNREGISTER and had completed before the second, which therefore said
            # DENIED: Linux takes that for a failure, and its own record of the event stays. docs/reference/sdei.md
            assert bound.status == 1
            assert f"sdei: Event {EVENT} already registered" in log
            assert not instance(guest)["registered"], "for the firmware it is gone"
        else:
            assert bound.status == 0, log
            assert guest.inject(EVENT, 0, wait=True).outcome == "completed"
        assert all("is not registered" in text or "unregister" in text or "disabled" in text for text in refused), set(
            refused
        )
        assert not TROUBLE.search(guest.run("dmesg").output)
