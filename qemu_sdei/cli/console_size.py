"""The size of the user's terminal, for a guest whose console is there: a serial line does not tell it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from qemu_sdei.errors import SdeiError

_LIMIT: Final = 20.0
_SET: Final = "read -r all </sys/class/tty/console/active; stty -F /dev/${{all##* }} rows {rows} cols {columns}; exit"
"""The shell leads a session of its own and would become its last command. As a leader without a terminal `stty` would
get the console for that, if it came before the guest's shell, and take it along when it ends: the guest powers off.
"""


class ConsoleSize:
    """Has the agent in the guest set it, beside the console; a guest without one does without."""

    def __init__(self, where: Callable[[], Path]) -> None:
        """`where`: the guest's run directory now."""
        self._where = where
        self._known = (0, 0)
        self._busy = threading.Lock()

    def is_now(self, rows: int, columns: int) -> None:
        """The terminal has that size; does nothing where it had before."""
        if (rows, columns) == self._known or not rows or not columns or not self._busy.acquire(blocking=False):
            return
        self._known = rows, columns
        threading.Thread(target=self._tell, args=(rows, columns), daemon=True).start()

    def _tell(self, rows: int, columns: int) -> None:
        from qemu_sdei.guest import guest_exec

        try:
            with contextlib.suppress(SdeiError, OSError):
                script = _SET.format(rows=rows, columns=columns)
                guest_exec.run(self._where, lambda: None, script, b"", _LIMIT)
        finally:
            self._busy.release()
