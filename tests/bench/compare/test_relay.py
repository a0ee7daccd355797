"""A comparison with real processes: ours beside nginx, where there is one."""

import pytest

from bench.compare.findings import OURS
from bench.compare.processes import Fleet, Origin, Proxy, find_program, stage
from bench.load.report import Report

STREAMS = 16
RATE = 50


def words() -> tuple[str, ...]:
    return ("--rate", str(RATE), "--stamp", "--tokens", "40")


@pytest.mark.e2e
@pytest.mark.parametrize("program", [OURS, "nginx", "haproxy"])
def test_every_program_passes_on_the_same_tokens(program: str) -> None:
    if program != OURS and find_program(program) is None:
        pytest.skip(f"{program} is not installed")
    with stage() as on:
        if program == OURS:
            fleet = Fleet(on, agents=2, slots=8, agent_words=words())
            measured, url = fleet.balancer, fleet.url
        else:
            proxy = Proxy(on, program, Origin(on, *words()))
            measured, url = proxy.program, proxy.url
        load = on.load(
            url,
            *("--streams", str(STREAMS), "--requests", str(STREAMS), "--max-tokens", "40"),
            *("--stamps", "--duration", "60"),
            watched=measured,
        )
        report: Report = load.report()
        assert measured.memory_bytes() > 1_000_000
    assert (report.finished, report.failed, report.tokens) == (STREAMS, 0, STREAMS * 40)
    assert report.cpu_us_per_token is not None
    assert report.cpu_us_per_request is not None
    assert report.cpu_us_per_token > 0
    assert report.cpu_us_per_token == pytest.approx(report.cpu_us_per_request / 40)
    assert report.token_age is not None
    assert report.token_age.count == STREAMS * 40
    assert 15 < report.between_tokens.p50_ms < 100
