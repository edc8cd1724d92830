r"""An SSDT with `\_SB._OSC`: by it an operating system asks whether firmware comes first when hardware errs.

Linux asks twice, by the platform's and by WHEA's UUID, and says "APEI firmware first mode is enabled by APEI bit and
WHEA _OSC"; without the method, "Failed to enable APEI firmware first mode".
"""

from __future__ import annotations

from typing import Final

from qemu_sdei.acpi import aml
from qemu_sdei.acpi.table import Oem
from qemu_sdei.acpi.tables.raw import RawTable

PLATFORM: Final = "0811b06e-4a27-44f9-8d60-3cbbc22e7b48"
"""Capabilities of the platform (ACPI 6.5 6.2.11.2)."""
WHEA: Final = "ed855e0c-6c90-47bf-a62a-26de0fc5ad5c"
"""Windows Hardware Error Architecture: that it is asked for at all is what counts."""
APEI_SUPPORT: Final = 1 << 4
"""Of the platform's capabilities the one that is granted (ACPI 6.5 table 6.13)."""
_REVISION: Final = 1
UNKNOWN_UUID: Final = 1 << 2
UNKNOWN_REVISION: Final = 1 << 3
MASKED: Final = 1 << 4
"""Of the answer's first word (ACPI 6.5 6.2.11.1)."""
_SSDT_REVISION: Final = 2
_STATUS: Final = "CDW1"
_CAPABILITIES: Final = "CDW2"
_UUID, _ASKED_REVISION, _WORDS = aml.arg(0), aml.arg(1), aml.arg(3)


def osc_table(oem: Oem | None = None) -> RawTable:
    r"""The table. A machine whose DSDT has a `\_SB._OSC` of its own must not get it: a name can be there once."""
    status, capabilities = aml.name(_STATUS), aml.name(_CAPABILITIES)
    answer = aml.returns(_WORDS)

    def say(error: int) -> bytes:
        return aml.either(status, aml.number(error), status)

    refuse_revision = aml.when(aml.differs(_ASKED_REVISION, aml.number(_REVISION)), say(UNKNOWN_REVISION), answer)
    grant = (
        aml.dword_field(_WORDS, 4, _CAPABILITIES),
        aml.both(capabilities, aml.number(APEI_SUPPORT), aml.local(0)),
        aml.when(aml.differs(aml.local(0), capabilities), say(MASKED), aml.store(aml.local(0), capabilities)),
        answer,
    )
    body = aml.scope(
        r"\_SB",
        aml.method(
            "_OSC",
            4,
            aml.dword_field(_WORDS, 0, _STATUS),
            aml.when(aml.equal(_UUID, aml.uuid(WHEA)), refuse_revision, answer),
            aml.when(aml.equal(_UUID, aml.uuid(PLATFORM)), refuse_revision, *grant),
            say(UNKNOWN_UUID),
            answer,
            serialized=True,
        ),
    )
    return RawTable.build("SSDT", body, revision=_SSDT_REVISION, oem=oem)
