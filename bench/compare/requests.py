"""Short requests on connections that stay open: processor time and delay of each."""

import time
from typing import Final

from bench.compare.findings import OURS, Findings
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
        cpu_us, report = _through(program, ("--streams", "32"), window_s)
        is_doubtful = bool(report.notes)
        findings.add(
            group,
            "processor time",
            "µs/request",
            program,
            cpu_us,
            budget=60.0,
            is_doubtful=is_doubtful,
        )
        findings.add(
            group,
            "answered",
            "requests/s",
            program,
            report.requests_per_s,
            is_more_better=True,
            is_doubtful=is_doubtful,
        )
    _compare_delay(findings, window_s)


def _compare_delay(findings: Findings, window_s: float) -> None:
    group = "short requests, 1,000 a second"
    pace = ("--arrivals", "1000", "--streams", "500")
    with stage() as on:
        origin = Origin(on, "--rate", "0")
        _, direct = _measure(on, origin.program, origin.url, pace, window_s)
    for program in (OURS, *OTHERS):
        if program != OURS and find_program(program) is None:
            continue
        cpu_us, report = _through(program, pace, window_s)
        is_doubtful = bool(report.notes or direct.notes)
        added = max(0.0, report.whole.p99_ms - direct.whole.p99_ms)
        findings.add(
            group, "processor time", "µs/request", program, cpu_us, is_doubtful=is_doubtful
        )
        findings.add(group, "added, p99", "ms", program, added, budget=1.0, is_doubtful=is_doubtful)


def _through(program: str, pace: tuple[str, ...], window_s: float) -> tuple[float, Report]:
    with stage() as on:
        if program == OURS:
            fleet = Fleet(on, agents=8, slots=64, agent_words=("--rate", "0"))
            return _measure(on, fleet.balancer, fleet.url, pace, window_s)
        proxy = Proxy(on, program, Origin(on, "--rate", "0"))
        return _measure(on, proxy.program, proxy.url, pace, window_s)


def _measure(
    on: Stage, program: Program, url: str, pace: tuple[str, ...], window_s: float
) -> tuple[float, Report]:
    load = on.load(
        url,
        *pace,
        *("--max-tokens", "1", "--no-stream", "--prompt-words", "16"),
        *("--duration", str(window_s + 1.5), "--warmup", "1.5", "--drain", "2"),
    )
    time.sleep(2.5)
    began_s, began_at = program.cpu_s(), time.monotonic()
    time.sleep(window_s - 1.5)
    cpu_s, length_s = program.cpu_s() - began_s, time.monotonic() - began_at
    report = load.report()
    return cpu_s / length_s / max(report.requests_per_s, 1e-9) * 1e6, report
