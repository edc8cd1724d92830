"""Writes the pages of docs/reference that are printed from the code: `python scripts/docgen.py`.

`tests/test_docs.py` fails when a page is not what this prints. (docs/reference/sdei-states.md has a printer of its own,
`python -m qemu_sdei.sdei.document`.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, with any Python

from scripts.docgenlib import (  # noqa: E402
    acpi_tables,
    command_line,
    filled_pages,
    frame_window,
    library,
    man_page,
    moving,
    schemas,
)

PAGES: Final[dict[str, Callable[[], str]]] = {
    "docs/reference/cli.md": command_line.cli,
    "docs/man/qemu-sdei.1": man_page.manual,
    "docs/reference/frame-window.md": frame_window.window,
    "docs/reference/conformance.md": filled_pages.conformance,
    "docs/reference/guest-places.md": moving.places,
    "docs/reference/kvm-registers.md": filled_pages.kvm_registers,
    "docs/reference/library.md": library.library,
    "docs/reference/migration-failures.md": moving.migration,
    "docs/reference/acpi-tables.md": acpi_tables.acpi_tables,
    "docs/reference/control-protocol.md": filled_pages.control,
    "docs/reference/cper.md": filled_pages.cper,
    "docs/reference/crash-matrix.md": filled_pages.crash_matrix,
    "docs/reference/crash-matrix.schema.json": schemas.crash_matrix_document,
    "docs/reference/firmware-profiles.md": filled_pages.firmware_profiles,
    "docs/reference/state-document.schema.json": schemas.document_schema,
    "docs/reference/trace.md": filled_pages.trace,
    "docs/reference/trace.schema.json": schemas.trace_schema,
    "docs/reference/status.schema.json": schemas.status_document,
    "docs/reference/explain.schema.json": schemas.explanation_document,
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / name).write_text(page())
