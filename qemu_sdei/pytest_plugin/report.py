"""What the report of a failed test has of its guests, and what JUnit learns of each."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qemu_sdei.printable import printable

if TYPE_CHECKING:
    from qemu_sdei.guest.guest import Guest

_LINES: Final = 30
_RECORDS: Final = 20
_WIDTH: Final = 100


def sections(guest: Guest) -> list[tuple[str, str]]:
    """Title and text, each; what cannot be found out says why."""
    name = guest.name
    looks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("explain", lambda: _explained(guest)),
        ("console", lambda: "\n".join(map(printable, guest.console_text.last_lines(_LINES)))),
        ("trace", lambda: _traced(guest)),
        ("command line of QEMU", lambda: shlex.join(guest.command_line)),
    )
    return [(f"guest {name}: {title}", _looked(look)) for title, look in looks]


def _looked(look: Callable[[], str]) -> str:
    try:
        return look() or "(nothing)"
    except Exception as error:  # a report must not hide the failure that it is about
        return f"(not known: {type(error).__name__}: {error})"


def _explained(guest: Guest) -> str:
    from qemu_sdei.explain.lines import short

    return "\n".join(short(guest.explain(), width=_WIDTH, where=True))


def _traced(guest: Guest) -> str:
    from qemu_sdei.trace.columns import Columns

    columns = Columns()
    return "\n".join(map(columns.line, guest.trace(_RECORDS)))


def keep(guest: Guest, directory: str, test: str) -> str:
    """Save the guest of a failed test below `directory`. Returns the line that goes on with it."""
    from qemu_sdei.errors import SdeiError

    safe = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in test)[-100:]
    path = Path(directory).absolute() / safe
    number = 2
    while path.exists():
        path = path.with_name(f"{safe}-{number}")
        number += 1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        guest.save(path)
    except (OSError, SdeiError) as error:
        return f"(it could not be kept: {error})"
    return f"qemu-sdei restore {shlex.quote(str(path))}"


def properties(guest: Guest) -> dict[str, str]:
    """What JUnit's properties say of a guest."""
    from qemu_sdei import __version__

    options = guest.options
    found = {
        "sdei.package": __version__,
        "sdei.kernel": str(options.kernel or options.series or "Debian's"),
        "sdei.cpu": options.cpu,
        "sdei.smp": str(options.smp),
        "sdei.firmware": str(options.firmware or "spec"),
    }
    release = _looked(lambda: _release(guest.console))
    if not release.startswith("("):
        found["sdei.release"] = printable(release)
    return found


def _release(console: str) -> str:
    _, _, rest = console.partition("Linux version ")
    return rest.split(" ", 1)[0]
