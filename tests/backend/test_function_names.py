"""Names of function ids, as traces and `status` show them."""

from __future__ import annotations

import pytest

from qemu_sdei.services.function_names import UNKNOWN, function_name


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (0xC400_0021, "SDEI_EVENT_REGISTER"),
        (0x8400_0003, "CPU_ON"),
        (0xC400_0003, "CPU_ON"),
        (0xC400_000E, "SYSTEM_SUSPEND"),
        (0xC400_0053, "TRNG_RND"),
        (0x8400_0063, "FFA_VERSION"),
        (0x8600_0000, "VENDOR_HYP_KVM_FEATURES"),
        (0xBF00_FF01, "TRUSTED_OS_CALL_UID"),
        (0xC200_0001, "0xc2000001"),
        (UNKNOWN, "unknown"),
    ],
)
def test_a_person_reads_a_name_in_either_width(function: int, name: str) -> None:
    """What nobody knows is shown as its id."""
    assert function_name(function) == name
