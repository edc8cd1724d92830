"""What the scenarios' guests have in common, and the table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from qemu_sdei.pytest_plugin import options
from qemu_sdei.scenarios.results_table import TITLE, ResultsTable

_HERE: Final = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Have the table printed."""
    config.pluginmanager.register(ResultsTable(), "qemu-sdei-scenarios")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first line of a scenario's docstring is its name in the table."""
    for item in items:
        if item.path.parent == _HERE:
            doc = getattr(getattr(item, "function", None), "__doc__", None) or item.name
            item.user_properties.append((TITLE, doc.partition("\n")[0].rstrip(".")))


@pytest.fixture(scope="session")
def sdei_guest_options(pytestconfig: pytest.Config, sdei_variant: dict[str, Any]) -> dict[str, Any]:
    """The client module is at hand where it can be: built for Debian's kernels, or given by --sdei-client."""
    given = options.value(pytestconfig, "client")
    return {"client": given or "kernel" not in sdei_variant}
