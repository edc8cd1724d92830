"""What `run --low-latency` brings: figures with the host's cores kept awake, beside those without, in turns.

Where other work keeps the cores awake anyway it brings nothing, so the load that the table says is half of the answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from qemu_sdei import idle_states

if TYPE_CHECKING:
    from scripts.benchlib.table import Table

Figures = dict[str, float]
"""In nanoseconds, by name."""


def measure(
    rounds: int, wanted: Mapping[str, tuple[str, Callable[[], Figures]]], say: Callable[[str], None], table: Table
) -> None:
    """Medians of each figure of `wanted`: by what it is called its name among those that the function takes. Who is
    first changes from round to round. Raises OSError: the cores cannot be kept awake.
    """
    for label, (name, take) in wanted.items():
        awake: list[Figures] = []
        without: list[Figures] = []
        for n in range(rounds):
            say(f"{label}, round {n + 1} of {rounds}")
            for kept in (True, False) if n % 2 == 0 else (False, True):
                if not kept:
                    without.append(take())
                    continue
                fd = idle_states.keep_awake()
                try:
                    awake.append(take())
                finally:
                    os.close(fd)
        table.add_medians(label, name, awake, without)
