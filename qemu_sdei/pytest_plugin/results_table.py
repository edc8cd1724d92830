"""The table at the end of a run: scenario × kernel, ok, failed or not applicable with the reason."""

from __future__ import annotations

from typing import Final

import pytest

from qemu_sdei.printable import printable

TITLE: Final = "sdei.scenario"
"""The property of a test's report that has the scenario's name."""
VARIANT: Final = "sdei.variant"
"""The one that has the kernel and the firmware profile, as the plugin names them."""
OK, FAILED, NOT_APPLICABLE = "ok", "FAILED", "n.a."
_WIDTH: Final = 60
_NAME: Final = "qemu-sdei-scenarios"


def show(config: pytest.Config) -> None:
    """Have the table printed at the end, if there was a scenario."""
    if not config.pluginmanager.has_plugin(_NAME):
        config.pluginmanager.register(ResultsTable(), _NAME)


class ResultsTable:
    """Collects what became of each scenario, as pytest tells it."""

    def __init__(self) -> None:
        self._results: dict[str, dict[str, str]] = {}
        self._reasons: dict[str, dict[str, list[str]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A part of a test has ended."""
        properties = dict(report.user_properties)
        title = properties.get(TITLE)
        if title is None or (report.passed and report.when != "call"):
            return
        variant = str(properties.get(VARIANT, "default"))
        row = self._results.setdefault(str(title), {})
        if report.failed:
            row[variant] = FAILED
        elif report.skipped:
            row[variant] = NOT_APPLICABLE
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._reasons.setdefault(reason.removeprefix("Skipped: "), {}).setdefault(variant, []).append(str(title))
        else:
            row.setdefault(variant, OK)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table, and why something was not applicable."""
        if not self._results:
            return
        terminalreporter.section("scenarios")
        for line in self.lines():
            terminalreporter.line(line)

    def lines(self) -> list[str]:
        """The table as text."""
        variants = sorted({variant for row in self._results.values() for variant in row})
        width = min(_WIDTH, max(map(len, ("scenario", *self._results))))
        widths = [max(len(variant), len(FAILED)) for variant in variants]
        heads = "  ".join(f"{variant:<{size}}" for variant, size in zip(variants, widths, strict=True))
        out = [printable(f"{'scenario':<{width}}  {heads}".rstrip())]
        for title, row in self._results.items():
            cells = "  ".join(f"{row.get(each, ''):<{size}}" for each, size in zip(variants, widths, strict=True))
            out.append(printable(f"{title[:width]:<{width}}  {cells}".rstrip()))
        if self._reasons:
            out += ["", "not applicable:"]
        for reason, where in self._reasons.items():
            for variant, titles in where.items():
                of = f" ({variant})" if len(variants) > 1 else ""
                out.append(printable(f"- {reason}{of}: {', '.join(titles)}"))
        return out
