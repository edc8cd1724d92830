"""What is in a package, found by looking: so a new file in its folder is all that it takes to add a table."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType


def modules_in(package: str, path: Iterable[str]) -> list[ModuleType]:
    """All modules of `package`, imported, in the order of their names; `path` is the package's `__path__`.

    Also of a package in a zip file, where there is no folder to list.
    """
    return [import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(path)]
