"""The conformance suite's host side: runs the guest of `guest/conformance`, and makes data of what it prints."""

from qemu_sdei.conformance.build import build
from qemu_sdei.conformance.runner import Own, Report, run, run_image
from qemu_sdei.conformance.tap import Outcome, Result, write_tap

__all__ = ["Outcome", "Own", "Report", "Result", "build", "run", "run_image", "write_tap"]
