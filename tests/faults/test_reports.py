"""What tests tell of faults reaches the page, and so does what they could not tell."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.fleet import REPOSITORY
from tests.faults.matrix import PAGE, PARTS, with_table
from tests.faults.reports import FaultReport, read_reports

TESTS = """
import pytest

def test_survived(report_fault):
    first, second = report_fault("first"), report_fault("second")
    for report in (first, second):
        with report.recovering():
            pass
    first.outcome, second.outcome = "a | b", "c"

def test_broken(report_fault):
    report_fault("third").outcome = "never seen"
    assert False, "it broke\\nof all things"

def test_not_here(report_fault):
    report_fault("fourth")
    pytest.skip("no disk")

def test_broken_before_it_said_anything(report_fault):
    assert False, "early"

def test_silent(report_fault):
    report_fault("fifth").outcome = "who knows when"
"""


def test_every_fault_of_a_run_has_its_row(tmp_path: Path) -> None:
    told, tests = tmp_path / "told.xml", tmp_path / "test_some.py"
    tests.write_text(TESTS)
    command = [
        *(sys.executable, "-m", "pytest", "-p", "tests.faults.conftest", str(tests)),
        *("-c", str(REPOSITORY / "pyproject.toml"), "-p", "no:cacheprovider"),
        f"--junit-xml={told}",
    ]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False, timeout=60)
    assert run.returncode == 1, run.stdout.decode()
    reports = read_reports(told)
    assert [report.cells() for report in reports] == [
        ["first", r"a \| b", "< 0.1 s"],
        ["second", "c", "< 0.1 s"],
        ["third", "**failed**: AssertionError: it broke", "-"],
        ["fourth", "skipped: no disk", "-"],
        ["broken before it said anything", "**failed**: AssertionError: early", "-"],
        ["fifth", "**failed**: the test does not tell what came of it", "-"],
    ]
    assert [report.is_failed for report in reports] == [False, False, True, False, True, True]


def test_a_recovery_is_the_longest_of_those_that_ended() -> None:
    report = FaultReport("a fault")
    with report.recovering():
        pass
    first_s = report.recovery_s
    assert first_s is not None
    with pytest.raises(AssertionError), report.recovering():
        raise AssertionError("it does not serve")
    assert report.recovery_s == first_s
    report.recovery_s = 100.0
    with report.recovering():
        pass
    assert report.recovery_s == 100.0


def test_a_table_takes_the_place_of_the_one_before() -> None:
    page = PAGE.read_text()
    for part, head in PARTS.items():
        once = with_table(page, part, head, [["x"] * len(head)])
        assert once != page
        assert f"\n{'| x ' * len(head)}|\n" in once
        # Nothing beside the table has changed, and it is a table that can be changed again.
        assert with_table(once, part, head, [["y"] * len(head)]) == once.replace("| x ", "| y ")
        (line,) = (line for line in page.splitlines() if line == f"<!-- end of {part} -->")
        before, _, after = page.partition(line)
        assert once.endswith(line + after)
        assert once.startswith(before[: before.index(f"<!-- {part}:")])


def test_a_page_without_a_place_for_the_table_is_told() -> None:
    with pytest.raises(ValueError, match="<!-- other: made by"):
        with_table(PAGE.read_text(), "other", ("a",), [])
