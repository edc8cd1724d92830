"""A loop in a thread of its own, and what its caller does meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from qemu_sdei.errors import GuestTimeoutError, UsageError
from qemu_sdei.vm.event_loop import EventLoop

LIMIT = 20.0


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    loop.start("test")
    yield loop
    loop.stop(LIMIT)


class Work:
    """Waits until it is told to end."""

    def __init__(self) -> None:
        self.began, self.cancelled, self.over = threading.Event(), threading.Event(), threading.Event()

    async def __call__(self) -> str:
        self.began.set()
        try:
            while not self.over.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"


def test_its_caller_has_something_to_do_meanwhile(loop: EventLoop) -> None:
    work = Work()

    def meanwhile() -> None:
        assert work.began.wait(LIMIT)
        work.over.set()

    assert loop.call(work(), LIMIT, meanwhile=meanwhile) == "done"


def test_work_is_cancelled_where_the_caller_fails(loop: EventLoop) -> None:
    work = Work()

    def meanwhile() -> None:
        assert work.began.wait(LIMIT)
        raise UsageError("damaged")

    with pytest.raises(UsageError, match="damaged"):
        loop.call(work(), LIMIT, meanwhile=meanwhile)
    assert work.cancelled.wait(LIMIT)


def test_work_that_takes_too_long_is_cancelled(loop: EventLoop) -> None:
    work = Work()
    with pytest.raises(GuestTimeoutError, match=r"within 0\.1 s"):
        loop.call(work(), 0.1)
    assert not work.began.is_set() or work.cancelled.wait(LIMIT)
