"""Fixtures of more than one test of the backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backend.controlled import Backend, Peer


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend = Backend(tmp_path)
    backend.boot()
    yield backend
    backend.control.close()


@pytest.fixture
def peer(backend: Backend) -> Peer:
    return Peer(backend)
