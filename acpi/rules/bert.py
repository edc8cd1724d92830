"""Rules for BERT (ACPI 6.5 18.3.1)."""

from __future__ import annotations

from qemu_sdei.acpi.rules.hest import MIN_BLOCK
from qemu_sdei.acpi.rules.registry import rules_for
from qemu_sdei.acpi.rules.report import Report
from qemu_sdei.acpi.tables.bert import Bert


@rules_for(Bert)
def check(report: Report, table: Bert) -> None:
    """Check the whole table.

    Errors: region below 20 bytes or at 0.
    """
    if table.region_length < MIN_BLOCK:
        report.error("region_length", f"{table.region_length} bytes: an error status block has at least {MIN_BLOCK}")
    if not table.region_address:
        report.error("region_address", "it is 0: there is no boot error region")
