"""Streams through our balancer, nginx and haproxy: processor time and delay of each token."""

import time
from typing import Final

from bench.compare.findings import OURS, Findings
from bench.compare.processes import Fleet, Origin, Program, Proxy, Stage, find_program, stage
from bench.load.report import Report

OTHERS: Final = ("nginx", "haproxy")
ENDLESS: Final = "1000000"
SLOTS: Final = 8


def compare_relay(findings: Findings, *, is_quick: bool) -> None:
    """1,000 streams at 20 tokens a second, then 500 for the delay at 10,000 tokens a second."""
    streams, window_s = (400, 3.0) if is_quick else (1000, 8.0)
    group = f"relay, {streams:,} streams at 20 tokens/s"
    for program in (OURS, *OTHERS):
        if program != OURS and find_program(program) is None:
            findings.skip(f"{group}: {program} is not installed")
            continue
        cpu_us, report = _through(program, streams=streams, rate=20, window_s=window_s)
        findings.add(
            group,
            "processor time",
            "µs/token",
            program,
            cpu_us,
            budget=8.0,
            is_doubtful=bool(report.notes),
        )
    if not is_quick:
        _compare_delay(findings, streams=500, window_s=window_s)


def _compare_delay(findings: Findings, *, streams: int, window_s: float) -> None:
    group = f"delay at {streams * 20:,} tokens/s"
    with stage() as on:
        origin = Origin(on, "--rate", "20", "--stamp")
        _, direct = _measure(on, origin.program, origin.url, streams=streams, window_s=window_s)
    for program in (OURS, *OTHERS):
        if program != OURS and find_program(program) is None:
            continue
        _, report = _through(program, streams=streams, rate=20, window_s=window_s)
        age, direct_age = report.token_age, direct.token_age
        assert age is not None
        assert direct_age is not None
        is_doubtful = bool(report.notes or direct.notes)
        added_p50 = max(0.0, age.p50_ms - direct_age.p50_ms)
        added_p99 = max(0.0, age.p99_ms - direct_age.p99_ms)
        findings.add(
            group, "added, p50", "ms", program, added_p50, budget=0.3, is_doubtful=is_doubtful
        )
        findings.add(
            group, "added, p99", "ms", program, added_p99, budget=1.0, is_doubtful=is_doubtful
        )


def measure_scale(findings: Findings, *, is_quick: bool) -> None:
    """1,000 agents of 8 slots, every slot with a stream of 10 tokens a second."""
    agents, window_s = (250, 6.0) if is_quick else (1000, 15.0)
    for rate in (10,) if is_quick else (2, 5, 10):
        _measure_scale(findings, agents, rate, window_s)


def _measure_scale(findings: Findings, agents: int, rate: int, window_s: float) -> None:
    streams = agents * SLOTS
    group = f"scale, {agents:,} agents, {streams:,} streams at {rate} tokens/s"
    cpu_us, report = _through(
        OURS, streams=streams, rate=rate, window_s=window_s, warmup_s=12.0, ramp_s=6.0
    )
    gap = report.between_tokens
    lost = report.failed + streams - report.cut - report.finished

    def tell(name: str, unit: str, value: float, budget: float | None = None) -> None:
        findings.add(group, name, unit, OURS, value, budget=budget, is_doubtful=bool(report.notes))

    tell("processor time", "µs/token", cpu_us, 8.0)
    tell("streams lost", "streams", float(lost), 0.0)
    tell("tokens/s of those wanted", "%", 100 * report.tokens_per_s / (streams * rate))
    tell("between tokens, p99", "ms", gap.p99_ms)
    tell("between tokens, longest", "ms", gap.max_ms, 1000.0)


def _through(
    program: str,
    *,
    streams: int,
    rate: int,
    window_s: float,
    warmup_s: float = 3.0,
    ramp_s: float = 1.5,
) -> tuple[float, Report]:
    """Processor time of ``program`` for each token, and what its clients saw."""
    with stage() as on:
        pace = ("--rate", str(rate), "--stamp", "--tokens", ENDLESS)
        if program == OURS:
            fleet = Fleet(on, agents=-(-streams // SLOTS), slots=SLOTS, agent_words=pace)
            measured, url = fleet.balancer, fleet.url
        else:
            proxy = Proxy(on, program, Origin(on, *pace))
            measured, url = proxy.program, proxy.url
        return _measure(
            on, measured, url, streams=streams, window_s=window_s, warmup_s=warmup_s, ramp_s=ramp_s
        )


def _measure(
    on: Stage,
    program: Program,
    url: str,
    *,
    streams: int,
    window_s: float,
    warmup_s: float = 3.0,
    ramp_s: float = 1.5,
) -> tuple[float, Report]:
    load = on.load(
        url,
        *("--streams", str(streams), "--max-tokens", ENDLESS, "--stamps"),
        *("--duration", str(warmup_s + window_s), "--warmup", str(warmup_s)),
        *("--ramp", str(ramp_s), "--drain", "0", "--timeout", "600"),
    )
    # Well within the window: its edges are another process's.
    time.sleep(warmup_s + 1.0)
    began_s, began_at = program.cpu_s(), time.monotonic()
    time.sleep(window_s - 1.5)
    cpu_s, length_s = program.cpu_s() - began_s, time.monotonic() - began_at
    report = load.report()
    return cpu_s / length_s / max(report.tokens_per_s, 1e-9) * 1e6, report
