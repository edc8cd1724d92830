"""How Hypothesis runs here when a fault is looked for and not looked at: `--hypothesis-profile=score`."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile(
    "score", phases=(Phase.explicit, Phase.generate), derandomize=True, database=None, print_blob=False
)
"""The same examples each time, and no shrinking: the first that fails is the answer."""
