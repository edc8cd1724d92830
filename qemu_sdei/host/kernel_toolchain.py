"""The cross compiler that kernels and their modules are built with: a GCC with its companions such as strip."""

from __future__ import annotations

import re
import shutil

from qemu_sdei.errors import UsageError
from qemu_sdei.guestcompile import CROSS_VARIABLE, find_compiler


def find(what: str, *more: str) -> tuple[str, str]:
    """The C compiler, and the prefix of its companions, for `what`, such as "the client module".

    Raises:
        UsageError: there is none, it is no GCC, or make or one of the tools `more` is missing.
    """
    compiler = find_compiler()
    missing = [] if compiler else ["a GCC for AArch64"]
    missing += [tool for tool in ("make", *more) if shutil.which(tool) is None]
    if missing:
        raise UsageError(
            f"{what} cannot be built without {' and '.join(missing)} "
            "(Debian: apt-get install make dpkg gcc-aarch64-linux-gnu)"
        )
    assert compiler is not None
    found = re.fullmatch(r"(.*/aarch64-[\w.-]+-)gcc[\d.-]*", compiler.path)
    if found is None or compiler.is_clang:
        raise UsageError(
            f"{compiler.path} cannot build {what}: a cross GCC is needed (Debian: apt-get install "
            f"gcc-aarch64-linux-gnu; {CROSS_VARIABLE} names another one)"
        )
    if shutil.which(f"{found[1]}strip") is None:
        raise UsageError(f"{found[1]}strip is missing: install the binutils of {compiler.path}")
    return compiler.path, found[1]
