"""The event loop of a guest, in a thread of its own: what is left unfinished in it ends with it, and is not printed.

A QEMU that is lost, or a connection that breaks, can leave tasks that nobody waits for any more. Errors that concern
the user reach whoever waits for the guest; asyncio's own words about the rest are for a log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from qemu_sdei.errors import GuestTimeoutError

T = TypeVar("T")
_UNFINISHED: Final = 5.0
"""Seconds that tasks may take to end once they are cancelled."""
_LOG: Final = logging.getLogger("qemu_sdei.loop")
_LOG.addHandler(logging.NullHandler())


class EventLoop:
    """A loop in a thread of its own, from `start` to `stop`."""

    def __init__(self, reason: Callable[[], str] = lambda: "") -> None:
        """`reason` is asked why something took too long; what it says is added to the error."""
        self._reason = reason
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """`start` was called."""
        return self._loop is not None

    @property
    def running(self) -> bool:
        """Work can be given to it."""
        return self._loop is not None and self._loop.is_running()

    def start(self, name: str) -> None:
        """Run, in a thread of that name."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log)
        # A daemon: Python does not wait for it at its end (`guest/exit_hooks.py` closes the guest then).
        self._thread = threading.Thread(target=_run, args=(self._loop,), name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], timeout: float, *, meanwhile: Callable[[], object] | None = None) -> T:
        """Do `work` in the loop and wait for it; from another thread. That thread calls `meanwhile` first, while the
        work is under way.

        Raises:
            GuestTimeoutError: it was not done within `timeout` seconds (after `meanwhile`), and is cancelled. Whatever
                `work` raises, and what `meanwhile` raises: the work is cancelled then.
        """
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            if meanwhile is not None:
                meanwhile()
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise GuestTimeoutError(
                f"the guest's processes did not do it within {timeout:g} s{self._reason()}"
            ) from None
        except BaseException:
            future.cancel()
            raise

    def soon(self, work: Callable[[], object]) -> bool:
        """Have `work` done in the loop, without waiting for it; False: the loop has ended."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work)
            return True
        return False

    def stop(self, limit: float) -> None:
        """End it, waiting for no more than `limit` seconds; does nothing the second time."""
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(limit)
        if not self._thread.is_alive():
            self._loop.close()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=_UNFINISHED))


def _log(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _LOG.debug("%s", context.get("message"), exc_info=context.get("exception"))
