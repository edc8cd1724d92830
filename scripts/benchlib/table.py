"""The rows that `scripts/bench` prints, how far their rounds lie apart, and where they were measured."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qemu_sdei import idle_states


def host_state(busy: int) -> dict[str, Any]:
    """What figures of this moment depend on. `busy`: processes that were started to keep the cores busy."""
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "busy": busy,
        "sleep": idle_states.describe(),
        "python": platform.python_version(),
    }


def earlier(path: Path) -> dict[str, float]:
    """The first column of a run that was printed with --json, by row. Raises ValueError: the file is none."""
    try:
        rows = json.loads(path.read_bytes())["rows"]
        return {str(row["what"]): float(row["python"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--compare wants a file that `scripts/bench --json` has printed: {error!r}") from None


class Table:
    """The rows that are printed: `python` beside `reference`, under what these are called.

    Attributes:
        before: figures of an earlier run, by row.
    """

    def __init__(self, names: tuple[str, str] = ("Python", "reference")) -> None:
        self.names = names
        self.rows: list[dict[str, Any]] = []
        self.before: dict[str, float] = {}

    def add(
        self, what: str, unit: str, python: float, reference: float, aim: str = "", spread: Sequence[float] = ()
    ) -> None:
        """One figure; `reference` 0: there is none. `spread`: that figure of each round."""
        row = {
            "what": what,
            "unit": unit,
            "python": python,
            "reference": reference,
            "ratio": python / reference if reference else None,
            "aim": aim,
            "lowest": min(spread, default=None),
            "highest": max(spread, default=None),
        }
        self.rows.append(row)

    def add_medians(
        self,
        what: str,
        key: str,
        python: Sequence[dict[str, float]],
        reference: Sequence[dict[str, float]],
        aim: str = "",
    ) -> None:
        """Medians over rounds of one figure, from ns to us."""
        sides = [[round_[key] / 1000 for round_ in side] for side in (python, reference)]
        self.add(what, "us", statistics.median(sides[0]), statistics.median(sides[1]), aim, sides[0])

    def print(self) -> None:
        """For people."""
        earlier = f"{'before':>10}{'ratio':>8}" if self.before else ""
        print(f"{'':46}{self.names[0]:>10}{'rounds':>20}{self.names[1]:>11}{'ratio':>8}{earlier}  aim")
        for row in self.rows:
            ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
            unit = f"{row['aim']} [{row['unit']}]" if row["unit"] else row["aim"]
            apart = "-" if row["lowest"] is None else f"{row['lowest']:.3f} to {row['highest']:.3f}"
            was = self.before.get(row["what"])
            than = "" if not self.before else f"{'-':>10}{'-':>8}"
            if was:
                than = f"{was:>10.3f}{row['python'] / was:>8.2f}"
            print(f"{row['what']:46}{row['python']:>10.3f}{apart:>20}{row['reference']:>11.3f}{ratio:>8}{than}  {unit}")
