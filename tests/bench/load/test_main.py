"""The load generator's command line and its reports."""

import argparse
import json
import random
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.load.__main__ import build_parser, main, plan_of
from bench.load.distribution import parse_distribution
from bench.load.html import render_html
from bench.load.plan import Api
from bench.load.report import print_report, report_of
from bench.load.run import Run
from tests.bench.load.servers import on_loop, paced, plan_for, serving

URL = "http://127.0.0.1:8070"


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["127.0.0.1:8070"], "expected http://host:port"),
        (["ftp://127.0.0.1"], "expected http://host:port"),
        (["http://127.0.0.1:99999"], "Port out of range"),
        ([f"{URL}/?a=b"], "expected nothing but a host, a port and maybe a path"),
        ([URL, "--streams", "0"], "--streams: '0': expected a whole number from 1 on"),
        ([URL, "--arrivals", "-3"], "--arrivals: '-3': expected a number"),
        ([URL, "--max-tokens", "uniform:9:2"], "'uniform:9:2': expected N, uniform:LOW:HIGH"),
        ([URL, "--prompt-words", "many"], "'many': expected N, uniform:LOW:HIGH"),
        ([URL, "--turns", "3", "--api", "completions"], "--api completions has no turns"),
        ([URL, "--warmup", "10"], "--warmup 10: expected less than --duration 10"),
        ([URL, "--body", "[1]"], "'[1]': expected a JSON object"),
        ([URL, "--header", "nothing"], "'nothing': expected 'NAME: VALUE'"),
        ([URL, "--header", "a: b\r\nc: d"], "expected 'NAME: VALUE'"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_each_api_has_its_path_unless_the_url_names_one() -> None:
    parse = build_parser().parse_args
    for api in Api:
        assert plan_of(parse([URL, "--api", api.value])).target.path == api.path
    assert plan_of(parse([f"{URL}/other/chat"])).target.path == "/other/chat"


@pytest.mark.parametrize(
    ("text", "low", "median", "high"),
    [("32", 32, 32, 32), ("uniform:10:20", 10, 15, 20), ("lognormal:100:0.5", 1, 100, 10_000)],
)
def test_a_distribution_draws_what_its_name_says(
    text: str, low: int, median: int, high: int
) -> None:
    dice = random.Random(1)
    distribution = parse_distribution(text)
    drawn = [distribution.draw(dice) for _ in range(2000)]
    assert low <= min(drawn)
    assert max(drawn) <= high
    assert statistics.median(drawn) == pytest.approx(median, rel=0.1)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "nan", "uniform:1", "lognormal:5:0", "x:1:2"])
def test_a_distribution_of_no_such_form_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected N, uniform:LOW:HIGH"):
        parse_distribution(text)


def test_reports_say_the_same_as_json_as_a_table_and_as_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test() -> None:
        async with serving(paced(tokens=4, gap_s=0.01)) as (port, _):
            plan = plan_for(port, streams=2, duration_s=2.2)
            run = Run(plan)
            await run.run()
        report = report_of(plan, run.measures)
        print_report(report)
        table = capsys.readouterr().out
        page = render_html(report)
        for text in (f"{report.tokens_per_s:.1f}", f"{report.first_token.p99_ms:.2f}"):
            assert text in table
            assert text in page
        assert report.tokens_per_s == pytest.approx(report.requests_per_s * 4, rel=0.1)
        assert "http" not in page.replace(report.url, "")  # nothing is loaded from elsewhere
        charts = [part.split("</svg>")[0] + "</svg>" for part in page.split("<svg")[1:]]
        assert len(charts) == 7
        for chart in charts:
            ET.fromstring("<svg" + chart)

    on_loop(test)


def test_a_run_from_the_command_line_writes_its_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_path, html_path = tmp_path / "a.json", tmp_path / "a.html"
    nobody = "http://127.0.0.1:1"
    flags = [nobody, "--requests", "2", "--quiet", "--json", str(json_path)]
    assert main([*flags, "--html", str(html_path), "--header", "authorization: Bearer s3cret"]) == 1
    report = json.loads(json_path.read_bytes())
    assert report["errors"] == {"cannot connect: Connection refused": 2}
    assert "2 of cannot connect: Connection refused" in capsys.readouterr().out
    for path in (json_path, html_path):
        assert "s3cret" not in path.read_text()


def test_a_report_that_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["http://127.0.0.1:1", "--requests", "1", "--quiet", "--json"]
    assert main([*flags, str(tmp_path)]) == 1
    assert "cannot write" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:  # before the run, not after it
        main([*flags, str(tmp_path / "no" / "a.json")])
    assert ended.value.code == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_a_process_that_cannot_be_watched_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    pid = 2**22 + 1
    main(["http://127.0.0.1:1", "--requests", "1", "--quiet", "--watch-pid", str(pid)])
    assert f"process {pid} could not be watched" in capsys.readouterr().out
