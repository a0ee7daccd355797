"""What came of a fault, as a test tells it and the tables of ``docs/reliability.md`` show it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from xml.etree import ElementTree

import msgspec

PROPERTY: Final = "fault report"


@dataclass
class FaultReport:
    """A fault that hit a fleet, what was seen of it, and how long the fleet needed afterwards."""

    fault: str
    phase: str = ""
    """Of the fleet's life, where each fault comes in each of them."""
    outcome: str = ""
    recovery_s: float | None = None
    """From the end of the fault, or from the fault itself where nothing but the fleet ends it,
    until the fleet serves again; the longest, if the fault comes repeatedly."""
    is_failed: bool = False

    @contextlib.contextmanager
    def recovering(self) -> Iterator[None]:
        """The block begins where ``recovery_s`` does, and waits until the fleet serves."""
        began_at = time.monotonic()
        yield
        self.recovery_s = max(self.recovery_s or 0.0, time.monotonic() - began_at)

    def failed(self, why: object) -> Self:
        """The same fault, which was not survived."""
        first, *_ = str(why).splitlines() or ["without a word"]
        self.outcome, self.recovery_s, self.is_failed = f"**failed**: {first}", None, True
        return self

    def cells(self) -> list[str]:
        """What stands in its row, one line each."""
        took = "-"
        if self.recovery_s is not None:
            took = f"{self.recovery_s:.1f} s" if self.recovery_s >= 0.05 else "< 0.1 s"
        phase = [self.phase] if self.phase else []
        return [
            " ".join(text.split()).replace("|", r"\|")
            for text in (self.fault, *phase, self.outcome, took)
        ]


ReportFault = Callable[[str], FaultReport]
"""The fixture of that name."""


def read_reports(path: Path) -> list[FaultReport]:
    """What the tests of one run of pytest told, from the file that ``--junit-xml`` names."""
    cases = ElementTree.parse(path).getroot().iter("testcase")
    return [report for case in cases for report in _reports_of(case)]


def _reports_of(case: ElementTree.Element) -> list[FaultReport]:
    told = [
        msgspec.json.decode(one.attrib["value"], type=FaultReport)
        for one in case.iter("property")
        if one.attrib["name"] == PROPERTY
    ]
    # Who fails or is skipped before it names its fault has a name itself.
    reports = told or [FaultReport(case.attrib["name"].removeprefix("test_").replace("_", " "))]
    for failure in (*case.iter("failure"), *case.iter("error")):
        return [report.failed(failure.attrib["message"]) for report in reports]
    for skip in case.iter("skipped"):
        for report in reports:
            report.outcome, report.recovery_s = f"skipped: {skip.attrib['message']}", None
        return reports
    for report in reports:
        if not report.outcome or report.recovery_s is None:
            report.failed("the test does not tell what came of it")
    return reports
