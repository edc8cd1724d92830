"""`-vv`: the messages exchanged with QEMU, backends, supervisors and other hosts, with times, on standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from qemu_sdei.cli.screen import raw
from qemu_sdei.message_log import NAMES
from qemu_sdei.printable import printable


class _Lines(logging.Handler):
    """One line a message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = printable(record.getMessage(), None)
        line = f"{clock}.{int(record.msecs):03} {record.name.rpartition('.')[2]} {text}"
        stream = raw(sys.stderr)
        try:
            # A terminal that shows a guest's console is in raw mode: a line end alone does not lead to its margin.
            stream.write(f"{line}\r\n" if stream.isatty() else f"{line}\n")
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody can read it: that must not end a migration


@contextmanager
def messages_shown() -> Iterator[None]:
    """Show the messages until the end of the block."""
    handler = _Lines()
    loggers = [logging.getLogger(name) for name in NAMES]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
