"""Guests with their firmware as pytest fixtures (docs/howto/pytest.md).

pytest loads this module wherever the package is installed: it imports nothing of the package that is heavy, and prints
nothing where no test asks for a guest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import Any

import pytest

from qemu_sdei.pytest_plugin import options
from qemu_sdei.pytest_plugin.fixtures import (
    _module_guest,
    _session_guest,
    bare_metal_guest,
    console,
    crash,
    events,
    firmware,
    guest,
    module_guest,
    ras,
    sdei_guest_options,
    sdei_starter,
    sdei_variant,
    session_guest,
)
from qemu_sdei.pytest_plugin.guests_of_test import guests_of

_MARKERS = (
    "sdei_options(**options): what the guest of a test is to be; fields of GuestOptions",
    "sdei_needs(*words, kernel=None, config=None, cpus=None): skip where the guest lacks it; words: acpi, dt, ras, "
    "shell, linux",
)
_PROCESS = pytest.StashKey[int]()

__all__ = [
    "_module_guest",
    "_session_guest",
    "bare_metal_guest",
    "console",
    "crash",
    "events",
    "firmware",
    "guest",
    "module_guest",
    "ras",
    "sdei_guest_options",
    "sdei_starter",
    "sdei_variant",
    "session_guest",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Have pytest know the options."""
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest know the markers, and check the options."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    config.stash[_PROCESS] = os.getpid()
    for option in options.OPTIONS:
        options.value(config, option.word)
    options.several(config)
    if config.getoption("dist", "no") != "no":
        # With xdist only its workers read the scenarios' conftest.py, and their tables are not seen.
        from qemu_sdei.pytest_plugin.results_table import show

        show(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that has a guest once with each kernel and firmware profile of the command line."""
    chosen = options.several(metafunc.config)
    if chosen != [{}] and "sdei_variant" in metafunc.fixturenames:
        metafunc.parametrize("sdei_variant", chosen, ids=[options.title(each) for each in chosen], scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """A failed test's report has what its guests were doing; JUnit learns what they were."""
    report = yield
    guests = guests_of(item)
    if guests and os.getpid() != item.config.stash[_PROCESS]:
        # Else it would run the other tests once more.
        sys.stderr.write(f"{item.nodeid}: a child process that the test forked came back from it, and is ended here\n")
        sys.stderr.flush()
        os._exit(1)
    if call.when != "call" or not guests:
        return report
    from qemu_sdei.pytest_plugin import report as words

    for found in guests:
        item.user_properties += [each for each in words.properties(found).items() if each not in item.user_properties]
    report.user_properties = item.user_properties
    if report.failed:
        directory = options.value(item.config, "keep")
        for found in guests:
            report.sections += words.sections(found)
            if directory is not None:
                report.sections.append(
                    (f"guest {found.name}: go on with it", words.keep(found, directory, item.nodeid))
                )
    return report
