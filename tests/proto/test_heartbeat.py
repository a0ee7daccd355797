"""When to ping, and when to give up."""

import pytest

from paddler.proto.heartbeat import Heartbeat, Verdict


def beat() -> Heartbeat:
    heartbeat = Heartbeat(ping_every_s=3.0, dead_after_s=10.0, now=100.0)
    heartbeat.on_pinged(100.0)
    return heartbeat


def test_first_ping_is_due_at_once() -> None:
    assert Heartbeat(ping_every_s=3.0, dead_after_s=10.0, now=100.0).check(100.0) is Verdict.PING


@pytest.mark.parametrize(
    ("after_s", "verdict"),
    [(0.0, Verdict.WAIT), (2.9, Verdict.WAIT), (3.0, Verdict.PING), (9.9, Verdict.PING)],
)
def test_verdict_follows_the_time_since_the_last_ping(after_s: float, verdict: Verdict) -> None:
    assert beat().check(100.0 + after_s) is verdict


def test_pings_go_on_though_the_peer_talks() -> None:
    heartbeat = beat()
    heartbeat.on_heard(103.0)
    assert heartbeat.check(103.0) is Verdict.PING


def test_silent_peer_is_dead_in_the_end_though_pinged() -> None:
    heartbeat = beat()
    verdicts = []
    for now in (103.0, 106.0, 109.0, 110.0):
        verdicts.append(heartbeat.check(now))
        heartbeat.on_pinged(now)
    assert verdicts == [Verdict.PING, Verdict.PING, Verdict.PING, Verdict.DEAD]
    assert heartbeat.silence_s(110.0) == 10.0


def test_check_after_a_standstill_does_not_blame_the_peer() -> None:
    heartbeat = beat()
    assert heartbeat.check(500.0) is Verdict.PING
    heartbeat.on_pinged(500.0)
    assert heartbeat.check(505.0) is Verdict.PING
    assert heartbeat.check(510.0) is Verdict.DEAD


def test_wait_reaches_to_the_next_ping_or_the_end_of_patience() -> None:
    heartbeat = beat()
    assert heartbeat.wait_s(101.0) == 2.0
    heartbeat.on_pinged(108.0)
    assert heartbeat.wait_s(108.0) == 2.0
    assert heartbeat.wait_s(120.0) == 0.0
