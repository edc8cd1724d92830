"""Steps that must not be left half done, even if their caller is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` to its end: a cancellation that comes meanwhile comes too late, and is forgotten.

    Whoever needs it to end soon makes it fail, by ending what it talks to.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()
