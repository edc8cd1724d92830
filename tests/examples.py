"""How many examples a property is tried with. A test that says a number itself says it by `examples`, so that it is
smaller in the inner loop and larger by `scripts/test --all`; imported after the profile was chosen. And what several
properties are tried with.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

QUICK = "quick"
"""`scripts/test --quick`."""
THOROUGH = "thorough"
"""`scripts/test --all`."""
SCORE = "score"
"""For faults that are put in on purpose (tests/sdei/mutants.py): the same examples each time."""
NORMAL = "tests"
_SHARE = {QUICK: 10, NORMAL: 2}
"""Each run has other examples: so many fewer of them in the inner loop, and before a change is handed over."""
_FEWEST = 5

# How long an example takes is no property of the program: a machine that does something else as well is no failure.
settings.register_profile(THOROUGH, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(NORMAL, settings.get_profile(THOROUGH), max_examples=50)
settings.register_profile(QUICK, settings.get_profile(THOROUGH), max_examples=10)
# No shrinking: the first example that fails is the answer.
settings.register_profile(
    SCORE, phases=(Phase.explicit, Phase.generate), derandomize=True, database=None, print_blob=False
)
settings.register_profile(f"{SCORE}-{NORMAL}", settings.get_profile(SCORE))


def examples(normal: int, thorough: int | None = None) -> int:
    """Half of `normal`, a tenth of it in the inner loop; where all is tried `thorough`, or all of `normal`."""
    profile = settings.get_current_profile_name()
    if profile in _SHARE:
        return max(normal // _SHARE[profile], _FEWEST)
    return thorough if thorough is not None and profile in (THOROUGH, SCORE) else normal


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""What can be in a JSON document, of any form but of a limited size: without limits a run has spent its two minutes on
making examples.
"""
