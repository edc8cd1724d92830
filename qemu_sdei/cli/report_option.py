"""`--report FILE` of commands that run guests themselves: a page of all that happened in them."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from qemu_sdei.errors import ProtocolError, UsageError

if TYPE_CHECKING:
    from qemu_sdei.guest.kept import Kept


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """Add `--report`."""
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="also write the page that `qemu-sdei report` makes to FILE; an existing file is replaced",
    )


class RunReport(AbstractContextManager["RunReport"]):
    """The page of a command's guests. It is written when the command has ended, also by an error."""

    def __init__(self, path: str | None, title: str) -> None:
        """`path`: the page; None: none is wanted. Raises `UsageError`: it cannot be written there."""
        from qemu_sdei import paths

        self._path = None if path is None else paths.absolute(path)
        if self._path is not None and (self._path.is_dir() or not self._path.parent.is_dir()):
            raise UsageError(f"--report {path}: give a file in a directory that is there")
        self._title = title
        self._folder = ExitStack()
        self._kept: list[Kept] = []
        self._place = Path()

    def __enter__(self) -> RunReport:
        if self._path is not None:
            self._place = Path(self._folder.enter_context(tempfile.TemporaryDirectory(prefix="qemu-sdei-")))
        return self

    def next_guest(self) -> Kept | None:
        """Where the next guest's trace and console are to be kept; None: no page is wanted."""
        from qemu_sdei.guest.kept import Kept

        if self._path is None:
            return None
        kept = Kept.at(self._place / str(len(self._kept) + 1))
        self._kept.append(kept)
        return kept

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._folder:
            # Who presses Ctrl-C does not wait for a page.
            if self._path is None or not (kind is None or issubclass(kind, Exception)):
                return
            try:
                self._write(self._path, failed=error is not None)
            except UsageError:
                if error is None:
                    raise  # else the first one is what is told

    def _write(self, path: Path, *, failed: bool) -> None:
        from qemu_sdei.trace.meta import TraceMeta
        from qemu_sdei.trace.reading import open_trace
        from qemu_sdei.views.html_page import write_page

        consoles, metas, notes = [], [], []
        with ExitStack() as stack:
            traces: list[Iterator[Mapping[str, Any]]] = []
            for number, kept in enumerate(self._kept, 1):
                if kept.console.exists():
                    consoles.append(kept.console.read_text(errors="backslashreplace"))
                try:
                    reading = stack.enter_context(open_trace(kept.trace))
                except (UsageError, ProtocolError) as why:
                    notes.append(f"The trace of guest {number} cannot be read: {why}")
                    continue
                metas.append(reading.meta)
                traces.append(reading.records())
            if failed and not traces:
                return  # nothing has run: a page of before stays
            meta = max(metas, key=lambda meta: meta.vcpus, default=TraceMeta())
            console = "\n".join(consoles)
            try:
                write_page(path, meta, _one_after_the_other(traces), console, title=self._title, notes=notes)
            except OSError as why:
                raise UsageError(f"{path} cannot be written: {why.strerror}") from None


def _one_after_the_other(traces: list[Iterator[Mapping[str, Any]]]) -> Iterator[Mapping[str, Any]]:
    """Records of several guests as those of one trace: all have the host's clock, and numbers go on."""
    last = 0
    for trace in traces:
        base = last
        for record in trace:
            last = max(last, base + record["n"])
            yield {**record, "n": base + record["n"]}
