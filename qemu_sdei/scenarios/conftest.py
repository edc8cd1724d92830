"""What the scenarios' guests have in common, and the table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from qemu_sdei.pytest_plugin import options
from qemu_sdei.pytest_plugin.results_table import TITLE, VARIANT, show

_HERE: Final = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Have the table printed."""
    show(config)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first line of a scenario's docstring is its name in the table; kernel and firmware profile are its column."""
    for item in items:
        if item.path.parent != _HERE:
            continue
        doc = getattr(getattr(item, "function", None), "__doc__", None) or item.name
        words = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        variant = options.title(words.pop("sdei_variant", {}))
        own = f" ({', '.join(map(str, words.values()))})" if words else ""
        item.user_properties += [(TITLE, doc.partition("\n")[0].rstrip(".") + own), (VARIANT, variant)]


@pytest.fixture(scope="session")
def sdei_guest_options(pytestconfig: pytest.Config, sdei_variant: dict[str, Any]) -> dict[str, Any]:
    """The client module is at hand where it can be: built for Debian's kernels, or given by --sdei-client."""
    given = options.value(pytestconfig, "client")
    return {"client": given or "kernel" not in sdei_variant}
