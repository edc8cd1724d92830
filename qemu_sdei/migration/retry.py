"""A migration that QEMU begins while the vCPUs run, tried again where it stopped them at a bad moment.

QEMU stops the vCPUs when it likes. If a service has micro-operations in flight then, its progress cannot be written
down, and in QEMU's pause the vCPUs cannot be let run on until it is done: the migration must be cancelled and begun
anew.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

from qemu_sdei.errors import BusyError, NotDeliveredError
from qemu_sdei.migration.options import SHARED, MigrationOptions, MigrationResult, Report, Step

TRIES: Final = 5
"""Of a service that has some in flight half of the time, 1 in 32 migrations is given up."""

Result = TypeVar("Result", bound=MigrationResult)


def longest(options: MigrationOptions, once: float) -> float:
    """Seconds that `try_again` takes at most, if each attempt takes `once` at most."""
    return 2 * once if _early(options) else once


def _early(options: MigrationOptions) -> bool:
    """Whether QEMU may begin while the vCPUs run."""
    return options.hold is None and (options.live or options.route == SHARED)


async def try_again(attempt: Callable[[bool], Awaitable[Result]], options: MigrationOptions, report: Report) -> Result:
    """Migrate by `attempt`, which is told whether QEMU may begin while the vCPUs run; in between the guest runs on.

    Where RAM is shared, the second attempt stops the vCPUs first, which always works in the end. Where it is sent while
    they run, there are some, of which none begins after `options.timeout` seconds. With a hold point there is one: the
    guest may not reach it again.

    Raises:
        NotDeliveredError, BusyError: the last attempt's. What else `attempt` raises.
    """
    began = time.monotonic()
    early = _early(options)
    number = 1
    while True:
        again = time.monotonic()
        try:
            result = await attempt(early)
        except NotDeliveredError as error:
            if not early:
                raise
            if options.route == SHARED:
                early = False
            elif not isinstance(error, BusyError):
                raise
            elif number == TRIES or time.monotonic() - began > options.timeout:
                raise BusyError(
                    f"{error} (attempts: {number}); try again, or migrate it by route copy, which stops the guest "
                    "first, and lets it run on for such a moment"
                ) from None
            report(Step("again"))
            number += 1
        else:
            return replace(result, total_ms=result.total_ms + 1000 * (again - began))
