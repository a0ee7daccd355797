"""Rows of comparisons, and how they are told."""

import sys
from pathlib import Path

import pytest

from bench.compare.__main__ import main
from bench.compare.engine import compare_engines
from bench.compare.findings import DIRECT, OURS, Findings, Row, spread
from bench.compare.results import render_results
from bench.compare.slots import measure_slots
from bench.compare.start import measure_start
from bench.compare.table import print_findings


def row_of(*, is_more_better: bool = False, budget: float | None = None, **values: float) -> Row:
    return Row(
        group="g",
        name="n",
        unit="ms",
        values={name: [value] for name, value in values.items()},
        budget=budget,
        is_more_better=is_more_better,
    )


def test_a_ratio_is_to_the_best_of_the_others() -> None:
    assert row_of(paddler=3.0, nginx=4.0, haproxy=6.0).ratio == ("nginx", 0.75)
    assert row_of(paddler=3.0, nginx=4.0, haproxy=6.0, is_more_better=True).ratio == (
        "haproxy",
        0.5,
    )
    assert row_of(paddler=3.0).ratio is None
    assert row_of(nginx=3.0).ratio is None
    assert row_of(paddler=3.0, nginx=0.0).ratio is None
    assert row_of(paddler=3.0, nginx=-0.1, haproxy=4.0).ratio is None


def test_the_way_without_a_proxy_is_no_other_program() -> None:
    row = row_of(paddler=3.0, nginx=4.0)
    row.values[DIRECT] = [1.0]
    assert row.ratio == ("nginx", 0.75)


@pytest.mark.parametrize(
    ("ours", "is_more_better", "within"),
    [(7.9, False, True), (8.1, False, False), (8.1, True, True), (7.9, True, False)],
)
def test_a_budget_is_a_limit_from_its_own_side(
    ours: float, is_more_better: bool, within: bool
) -> None:
    row = row_of(paddler=ours, budget=8.0, is_more_better=is_more_better)
    assert row.verdicts == [("8", within)]
    assert row_of(paddler=ours).verdicts == []
    assert row_of(nginx=ours, budget=8.0).verdicts == []


def test_a_budget_may_be_a_part_of_what_a_program_takes() -> None:
    def verdicts(ours: float, *, is_more_better: bool = False) -> list[tuple[str, bool]]:
        row = row_of(paddler=ours, nginx=10.0, haproxy=1.0, budget=6.0)
        row.part_budget, row.is_more_better = ("nginx", 0.65), is_more_better
        return row.verdicts

    assert verdicts(6.4) == [("6", False), ("0.65 of nginx", True)]
    assert verdicts(6.6) == [("6", False), ("0.65 of nginx", False)]
    assert verdicts(6.4, is_more_better=True) == [("6", True), ("0.65 of nginx", False)]
    alone = row_of(paddler=6.4)
    alone.part_budget = ("nginx", 0.65)
    assert alone.verdicts == []


def test_several_runs_show_their_spread() -> None:
    assert spread([2.0]) == "2"
    assert spread([1.0, 30.0, 2.0]) == "2 (1-30)"
    assert spread([12345.6]) == "12346"


def test_findings_are_told_in_the_order_in_which_they_came(
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = Findings()
    for value in (10.0, 12.0, 11.0):
        findings.add("relay", "cost", "µs", OURS, value, budget=8.0, is_doubtful=value > 11)
        findings.add("relay", "cost", "µs", "nginx", 2 * value)
    findings.add("start", "until it listens", "s", OURS, 0.2, budget=0.3)
    findings.skip("haproxy is not installed")
    page = render_results(findings, command="python -m bench.compare", commit="0123abc")
    assert page.index("## relay") < page.index("## start")
    assert "| cost * | µs | 11 (10-12) | nginx 22 (20-24) | 0.50 | 8 (missed) |" in page
    assert "| until it listens | s | 0.2 |  |  | 0.3 |" in page
    assert page.count("- the load generator itself was late") == 1
    assert "- Not measured: haproxy is not installed" in page
    print_findings(findings)
    table = capsys.readouterr().out
    for text in ("11 (10-12)", "nginx 22 (20-24)", "0.50", "8 NO", "0.3 ok", "haproxy is not"):
        assert text in table


def test_what_is_absent_is_skipped_and_said_so(tmp_path: Path) -> None:
    findings = Findings()
    compare_engines(findings, is_quick=True, model=tmp_path / "no.gguf")
    assert findings.rows == []
    assert "no.gguf is not there" in findings.skipped[0]


def test_slots_and_the_start_are_measured() -> None:
    findings = Findings()
    measure_slots(findings, is_quick=True)
    measure_start(findings, is_quick=True)
    assert [row.unit for row in findings.rows] == ["µs", "µs", "s"]
    assert all(row.values[OURS][0] > 0 for row in findings.rows)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["everything"], "'everything': expected slots, start, relay"),
        (["--repeat", "0"], "--repeat: '0': expected a whole number from 1 on"),
        (["--llama-server", "/no/such/program"], "--llama-server: /no/such/program: no program"),
    ],
)
def test_comparisons_refuse_flags_that_make_no_sense(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_results_name_programs_without_their_places(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    words = ["--quick", "slots", "--llama-server", sys.executable, "--results", str(page)]
    assert main(words) == 0
    text = page.read_text()
    assert "| claim and release, 1,000 agents | µs |" in text
    name = Path(sys.executable).name
    assert (
        f"`python -m bench.compare --quick slots --llama-server {name} --results RESULTS.md`"
        in text
    )


def test_results_that_cannot_be_written_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick", "slots", "--results", str(tmp_path)]) == 1
    assert f"cannot write {tmp_path}" in capsys.readouterr().err
