"""Streams through our balancer, nginx and haproxy: processor time and delay of each token."""

from typing import Final

from bench.compare.findings import DIRECT, OURS, Findings
from bench.compare.processes import Fleet, Origin, Program, Proxy, Stage, find_program, stage
from bench.load.report import Report

OTHERS: Final = ("nginx", "haproxy")
ENDLESS: Final = "1000000"
SLOTS: Final = 8


def compare_relay(findings: Findings, *, is_quick: bool) -> None:
    """1,000 streams at 20 tokens a second, then 500 for the delay at 10,000 tokens a second."""
    streams, window_s = (400, 4.0) if is_quick else (1000, 8.0)
    group = f"relay, {streams:,} streams at 20 tokens/s"
    for program in (OURS, *OTHERS):
        if program != OURS and find_program(program) is None:
            findings.skip(f"{group}: {program} is not installed")
            continue
        report = _through(program, streams=streams, rate=20, window_s=window_s)
        findings.add(
            group,
            "processor time",
            "µs/token",
            program,
            report.cpu_us_per_token,
            budget=8.0,
            part_budget=("nginx", 0.65),
            is_doubtful=bool(report.notes),
        )
    if not is_quick:
        _compare_delay(findings, streams=500, window_s=window_s)


def _compare_delay(findings: Findings, *, streams: int, window_s: float) -> None:
    """Ages of tokens when they are read, and how much of that the way without a proxy has not.

    It can be less than nothing: the way without is another run, with a process less.
    """
    group = f"delay at {streams * 20:,} tokens/s"
    with stage() as on:
        origin = Origin(on, "--rate", "20", "--stamp")
        direct = _measure(on, origin.program, origin.url, streams=streams, window_s=window_s)
    for program in (DIRECT, OURS, *OTHERS):
        if program in OTHERS and find_program(program) is None:
            continue
        if program == DIRECT:
            report = direct
        else:
            report = _through(program, streams=streams, rate=20, window_s=window_s)
        age, direct_age = report.token_age, direct.token_age
        assert age is not None
        assert direct_age is not None
        is_doubtful = bool(report.notes or direct.notes)
        for percent, whole_ms, direct_ms, budget_ms in (
            ("p50", age.p50_ms, direct_age.p50_ms, 0.3),
            ("p99", age.p99_ms, direct_age.p99_ms, 1.0),
        ):
            findings.add(group, f"age, {percent}", "ms", program, whole_ms, is_doubtful=is_doubtful)
            if program != DIRECT:
                findings.add(
                    group,
                    f"added, {percent}",
                    "ms",
                    program,
                    whole_ms - direct_ms,
                    budget=budget_ms,
                    is_doubtful=is_doubtful,
                )


def measure_scale(findings: Findings, *, is_quick: bool) -> None:
    """1,000 agents of 8 slots, every slot with a stream of 10 tokens a second."""
    agents, window_s = (250, 6.0) if is_quick else (1000, 15.0)
    for rate in (10,) if is_quick else (2, 5, 10):
        _measure_scale(findings, agents, rate, window_s)


def _measure_scale(findings: Findings, agents: int, rate: int, window_s: float) -> None:
    streams = agents * SLOTS
    group = f"scale, {agents:,} agents, {streams:,} streams at {rate} tokens/s"
    ramp_s = streams / 1000
    report = _through(
        OURS,
        streams=streams,
        rate=rate,
        window_s=window_s,
        warmup_s=2 * ramp_s,
        ramp_s=ramp_s,
        may_fail=True,  # it is told in rows of its own
    )
    gap = report.between_tokens
    flowing = report.cut - report.unanswered

    def tell(name: str, unit: str, value: float | None, budget: float | None = None) -> None:
        findings.add(group, name, unit, OURS, value, budget=budget, is_doubtful=bool(report.notes))

    tell("processor time", "µs/token", report.cpu_us_per_token, 8.0)
    tell("streams that broke", "streams", float(report.failed), 0.0)
    tell("streams that flowed at the end", "% of those wanted", 100 * flowing / streams)
    tell("tokens/s", "% of those wanted", 100 * report.tokens_per_s / (streams * rate))
    tell("between tokens, p99", "ms", gap.p99_ms)
    tell("between tokens, longest", "ms", gap.max_ms, 1000.0)
    tell("the load generator itself", "% of a core", 100 * report.generator_cpu)


def _through(
    program: str,
    *,
    streams: int,
    rate: int,
    window_s: float,
    warmup_s: float = 3.0,
    ramp_s: float = 1.5,
    may_fail: bool = False,
) -> Report:
    """What clients saw through ``program``, whose processor time is measured."""
    with stage() as on:
        pace = ("--rate", str(rate), "--stamp", "--tokens", ENDLESS)
        if program == OURS:
            fleet = Fleet(on, agents=-(-streams // SLOTS), slots=SLOTS, agent_words=pace)
            measured, url = fleet.balancer, fleet.url
        else:
            proxy = Proxy(on, program, Origin(on, *pace))
            measured, url = proxy.program, proxy.url
        return _measure(
            on,
            measured,
            url,
            streams=streams,
            window_s=window_s,
            warmup_s=warmup_s,
            ramp_s=ramp_s,
            may_fail=may_fail,
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
    may_fail: bool = False,
) -> Report:
    return on.load(
        url,
        *("--streams", str(streams), "--max-tokens", ENDLESS, "--stamps"),
        *("--duration", str(warmup_s + window_s), "--warmup", str(warmup_s)),
        *("--ramp", str(ramp_s), "--drain", "0", "--timeout", "600"),
        watched=program,
    ).report(may_fail=may_fail)
