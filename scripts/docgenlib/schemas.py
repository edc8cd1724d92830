"""JSON Schemas of the documents that other programs read."""

from __future__ import annotations

from qemu_sdei.backend.control.document_schema import SCHEMA
from qemu_sdei.crash import document as crash_document
from qemu_sdei.explain import explanation_schema
from qemu_sdei.guest import status_schema
from qemu_sdei.trace import record_schema
from scripts.docgenlib.page import as_json


def document_schema() -> str:
    """The state document's JSON Schema."""
    return as_json(SCHEMA, "") + "\n"


def trace_schema() -> str:
    """The JSON Schema of a line of a trace."""
    return as_json(record_schema.SCHEMA, "") + "\n"


def status_document() -> str:
    """The JSON Schema of `status --json`."""
    return as_json(status_schema.SCHEMA, "") + "\n"


def explanation_document() -> str:
    """The JSON Schema of `explain --json`."""
    return as_json(explanation_schema.SCHEMA, "") + "\n"


def crash_matrix_document() -> str:
    """The JSON Schema of `crash matrix --json`."""
    return as_json(crash_document.SCHEMA, "") + "\n"
