"""Which RAM QEMU sends whole while its guest runs, and of which it loses pages."""

from __future__ import annotations

from typing import Final

PAGE: Final = 4096
TRACKED: Final = 64 * PAGE
"""QEMU before 9.0 loses pages of RAM whose size is a multiple of this in live migrations: it clears the dirty bits of
64 pages at a time, and then misses writes by vCPUs that have the page in their TLB. In other RAM it clears them one at
a time, and looks for each through the TLBs of all vCPUs: 1.4 s for 1 GiB and two of them.
"""
LOSES_NOTHING: Final = (9, 0)
"""The first QEMU that does not."""
