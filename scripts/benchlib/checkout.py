"""Another state of this repository to measure beside this one: a directory, or a revision that git knows."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def checkout(name: str) -> Iterator[tuple[str, Path]]:
    """What to call it, and its directory: `name` itself if that is a checkout, else a work tree of that revision for as
    long as this lasts. Ends the program with one line when `name` is neither.
    """
    directory = Path(name).expanduser()
    if directory.is_dir():
        if not (directory / "qemu_sdei" / "backend").is_dir():
            sys.exit(f"scripts/bench: {name} is no checkout of qemu-sdei")
        yield directory.name or name, directory.resolve()
        return
    commit = _git("rev-parse", "--verify", "--quiet", "--short", f"{name}^{{commit}}")
    if commit is None:
        sys.exit(f"scripts/bench: {name!r} is neither a directory nor a revision that git knows")
    with tempfile.TemporaryDirectory(prefix="qemu-sdei-bench-") as parent:
        tree = Path(parent) / "tree"
        if _git("worktree", "add", "--detach", str(tree), commit) is None:
            sys.exit(f"scripts/bench: git cannot check {name} out")
        try:
            yield commit, tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
