"""How tests hand out what came of a fault."""

from collections.abc import Iterator

import msgspec
import pytest

from tests.faults.reports import PROPERTY, FaultReport, ReportFault


@pytest.fixture
def report_fault(request: pytest.FixtureRequest) -> Iterator[ReportFault]:
    """Call it with what the fault is, as soon as the test knows, and fill in what it returns.

    pytest writes it to the file that ``--junit-xml`` names; see ``tests.faults.matrix``.
    """
    reports: list[FaultReport] = []

    def begin(fault: str) -> FaultReport:
        reports.append(FaultReport(fault))
        return reports[-1]

    yield begin
    request.node.user_properties += [
        (PROPERTY, msgspec.json.encode(report).decode()) for report in reports
    ]
