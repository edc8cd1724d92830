"""For all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes is no property of the program: a machine that does something else as well is no failure.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
