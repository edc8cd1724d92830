"""Fixtures of the tests that boot guests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qemu_sdei import rundir
from qemu_sdei.host.debian import DebianCache
from qemu_sdei.vm.options import DIE_WITH_OWNER, GuestOptions
from tests.guest.guests import command, postcopy_works, runtime_directory
from tests.guest.other_releases import series_that_are_here

_PATIENCE = 3
"""Times as long as on a quiet machine a test may take before it is said to hang."""

os.environ.setdefault(DIE_WITH_OWNER, "1")  # a run of the tests that is killed leaves nothing


def _all_above_el2() -> None:
    """Have each guest of the tests run as under a hypervisor, unless it is to have EL2 itself."""
    make = GuestOptions.__init__

    def made(self: GuestOptions, **words: Any) -> None:
        make(self, **words | {"hypervisor": not words.get("virtualization", False)})

    GuestOptions.__init__ = made  # type: ignore[method-assign]


if os.environ.get("QEMU_SDEI_HYPERVISOR"):
    _all_above_el2()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The time limit of a test that boots guests is for one that hangs, and not for a host on which others work too."""
    for item in items:
        if item.get_closest_marker("guest") is not None:
            marker = item.get_closest_marker("timeout")
            limit = float(marker.args[0] if marker is not None else item.config.getini("timeout"))
            item.add_marker(pytest.mark.timeout(_PATIENCE * limit), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """See `other_releases`."""
    with series_that_are_here():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """See `other_releases`."""
    with series_that_are_here():
        yield


@pytest.fixture(autouse=True)
def postcopy_where_it_works(request: pytest.FixtureRequest) -> None:
    """What is tried by each route is not tried by postcopy where QEMU loses pages by that."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("route") == "postcopy" and not postcopy_works():
        pytest.skip("this QEMU loses pages by postcopy")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own, and this process's while the test runs."""
    with runtime_directory() as path:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
        yield path


@pytest.fixture
def ownerless(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Guests run on when their owner dies, and do not outlive the test."""
    monkeypatch.delenv(DIE_WITH_OWNER, raising=False)
    yield
    for guest in rundir.running():
        if not guest.owned:
            command(runtime, "stop", guest.name).wait(30)


@pytest.fixture(scope="session")
def linux() -> Path:
    """Debian's default kernel; the test is skipped where it cannot be had without a download."""
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("no qemu-system-aarch64")
    cache = DebianCache()
    if not cache.cached_kernels() or cache.cached_busybox() is None:
        pytest.skip("no Debian kernel in the cache: `qemu-sdei run -- true` gets one")
    return cache.kernel().image
