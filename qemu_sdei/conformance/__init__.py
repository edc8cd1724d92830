"""The conformance suite's host side: runs the guest of `guest/conformance`, and makes data of what it prints."""

from qemu_sdei.conformance.runner import Report, run
from qemu_sdei.conformance.tap import Outcome, Result, write_tap

__all__ = ["Outcome", "Report", "Result", "run", "write_tap"]
