"""For all tests."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.examples import NORMAL
from tests.guest.guests import runtime_directory
from tests.order import shared

settings.load_profile(NORMAL)  # unless --hypothesis-profile names another

# A shell that is no terminal's starts `... &` with SIGINT ignored, nohup its command with SIGHUP ignored, and all their
# children inherit that. The tests are of what signals do where they do something; tests/guest/test_signals.py is of the
# other case.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@pytest.hookimpl(trylast=True)  # when those that are not run are left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where processes share the tests, see `tests.order`. It is the same in each of them."""
    if hasattr(config, "workerinput"):
        count = config.workerinput["workercount"]
        items[:] = shared(items, count, is_long=_is_long, file=lambda item: item.path)


def _is_long(item: pytest.Item) -> bool:
    return item.get_closest_marker("guest") is not None or item.path.name in ("test_lint.py", "test_build.py")


@pytest.fixture(scope="session", autouse=True)
def own_runtime_directory() -> Iterator[None]:
    """Guests that the user has, or another run of the tests, are nobody's business here, nor are their names taken."""
    with runtime_directory() as path, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(path))
        yield


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own; pytest's are too long for a socket's path."""
    path = Path(tempfile.mkdtemp(prefix="qs-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)
