"""The event loop of a guest, in a thread of its own: what is left unfinished in it ends with it, and is not printed.

A QEMU that is lost, or a connection that breaks, can leave tasks that nobody waits for any more. Errors that concern
the user reach whoever waits for the guest; asyncio's own words about the rest are for a log.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any, Final

_UNFINISHED: Final = 5.0
"""Seconds that tasks may take to end once they are cancelled."""
_LOG: Final = logging.getLogger("qemu_sdei.loop")
_LOG.addHandler(logging.NullHandler())


def start(name: str) -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """A loop that runs, until its `stop`, in a thread of that name."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(_log)
    # A daemon: Python does not wait for it at its end (`orderly.py` closes the guest then).
    thread = threading.Thread(target=_run, args=(loop,), name=name, daemon=True)
    thread.start()
    return loop, thread


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
