"""Short requests on connections that stay open: processor time and delay of each."""

from typing import Final

from bench.compare.findings import DIRECT, OURS, Findings
from bench.compare.processes import Fleet, Origin, Program, Proxy, Stage, find_program, stage
from bench.load.report import Report

OTHERS: Final = ("nginx", "haproxy")
WINDOW_S: Final = 6.0


def compare_requests(findings: Findings, *, is_quick: bool) -> None:
    """One-token answers: as fast as 32 clients ask, and 1,000 a second at random times."""
    window_s = 3.0 if is_quick else WINDOW_S
    group = "short requests, 32 clients"
    for program in (OURS, *OTHERS):
        if program != OURS and find_program(program) is None:
            findings.skip(f"{group}: {program} is not installed")
            continue
        report = _through(program, ("--streams", "32"), window_s)
        is_doubtful = bool(report.notes)
        findings.add(
            group,
            "processor time",
            "µs/request",
            program,
            report.cpu_us_per_request,
            budget=60.0,
            is_doubtful=is_doubtful,
        )
        findings.add(
            group,
            "answered",
            "requests/s",
            program,
            report.requests_per_s,
            budget=10_000.0,
            is_more_better=True,
            is_doubtful=is_doubtful,
        )
    _compare_delay(findings, window_s)


def _compare_delay(findings: Findings, window_s: float) -> None:
    group = "short requests, 1,000 a second"
    pace = ("--arrivals", "1000", "--streams", "500")
    with stage() as on:
        origin = Origin(on, "--rate", "0")
        direct = _measure(on, origin.program, origin.url, pace, window_s)
    findings.add(
        group, "whole, p99", "ms", DIRECT, direct.whole.p99_ms, is_doubtful=bool(direct.notes)
    )
    for program in (OURS, *OTHERS):
        if program != OURS and find_program(program) is None:
            continue
        report = _through(program, pace, window_s)
        added_ms = report.whole.p99_ms - direct.whole.p99_ms
        for name, unit, value, budget in (
            ("processor time", "µs/request", report.cpu_us_per_request, None),
            ("whole, p99", "ms", report.whole.p99_ms, None),
            ("added, p99", "ms", added_ms, 1.0),
        ):
            findings.add(
                group,
                name,
                unit,
                program,
                value,
                budget=budget,
                is_doubtful=bool(report.notes or direct.notes),
            )


def _through(program: str, pace: tuple[str, ...], window_s: float) -> Report:
    with stage() as on:
        if program == OURS:
            fleet = Fleet(on, agents=8, slots=64, agent_words=("--rate", "0"))
            return _measure(on, fleet.balancer, fleet.url, pace, window_s)
        proxy = Proxy(on, program, Origin(on, "--rate", "0"))
        return _measure(on, proxy.program, proxy.url, pace, window_s)


def _measure(
    on: Stage, program: Program, url: str, pace: tuple[str, ...], window_s: float
) -> Report:
    return on.load(
        url,
        *pace,
        *("--max-tokens", "1", "--no-stream", "--prompt-words", "16"),
        *("--duration", str(window_s + 1.5), "--warmup", "1.5", "--drain", "2"),
        watched=program,
    ).report()
