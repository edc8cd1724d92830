"""What hosts other than Debian 12 lack of what the tests boot: such a test is skipped there, with the reason."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qemu_sdei.errors import UsageError
from qemu_sdei.host.environment import find_qemu

OUR_RELEASE = "bookworm"
"""Whose package sources have each series that the tests name."""
CORPUS_QEMU = (7, 2)


def release() -> str:
    """The codename of this host's release; "": it has none."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


@contextmanager
def series_that_are_here() -> Iterator[None]:
    """Skip a test that wants a kernel of another release."""
    try:
        yield
    except UsageError as error:
        if release() == OUR_RELEASE or "have no arm64 kernel of series" not in str(error):
            raise
        pytest.skip(str(error).partition(")")[0] + ")")


def corpus_goes_on() -> None:
    """Skip a test of the saved guests where QEMU has other registers than the one that saved them."""
    found = find_qemu(None).version
    if tuple(found[:2]) != CORPUS_QEMU:
        pytest.skip(f"the saved guests are of QEMU {'.'.join(map(str, CORPUS_QEMU))}")
