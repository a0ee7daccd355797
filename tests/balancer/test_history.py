import asyncio
from collections.abc import Callable

from paddler.balancer.history import MAX_SAMPLES, History
from paddler.balancer.records import RequestOutcome
from paddler.balancer.waitline import Waitline
from paddler.messages import link as wire
from paddler.messages.link import FrameKind
from tests.balancer.test_link import JOB, Outlet
from tests.balancer.test_measures import record
from tests.balancer.test_relay import Player, Pool


def kept(test: Callable[[History, Pool], object]) -> None:
    async def run() -> None:
        pool: Pool = Pool()
        test(History(pool, Waitline(pool, limit=1, timeout_s=1.0)), pool)

    asyncio.run(run())


def test_a_sample_shows_the_fleet_as_it_is() -> None:
    def test(history: History, pool: Pool) -> None:
        Player(pool, "a", 4)
        pool.claim()
        sample = history.take(1.0)
        assert (sample.at, sample.slots_busy, sample.slots_total) == (1.0, 1, 4)
        assert (sample.waiting, sample.tokens, sample.first_token_ms) == (0, 0, None)

    kept(test)


def test_a_sample_counts_what_ended_in_its_second() -> None:
    def test(history: History, pool: Pool) -> None:
        for first_token_s in (0.1, 0.3):
            history.on_record(record(first_token_s=first_token_s))
        history.on_record(record(outcome=RequestOutcome.FAILED))
        sample = history.take(1.0)
        assert (sample.requests, sample.errors, sample.first_token_ms) == (3, 1, 200.0)
        after = history.take(2.0)
        assert (after.requests, after.errors, after.first_token_ms) == (0, 0, None)

    kept(test)


def test_tokens_are_those_since_the_last_sample() -> None:
    async def run() -> None:
        pool: Pool = Pool()
        history = History(pool, Waitline(pool, limit=1, timeout_s=1.0))
        player = Player(pool, "a", 1)
        lease = pool.claim()
        assert lease is not None
        stream = player.link.start(lease, JOB, wire.Sampling(), wire.Delivery(), Outlet(), 60.0)
        for expected in (3, 2, 0):
            for _ in range(expected):
                player.say(stream.stream_id, FrameKind.CONTENT, b"x")
            assert history.take(1.0).tokens == expected
        player.die()
        assert history.take(2.0).tokens == 0

    asyncio.run(run())


def test_the_oldest_samples_are_forgotten() -> None:
    def test(history: History, pool: Pool) -> None:
        for at in range(MAX_SAMPLES + 5):
            history.take(float(at))
        assert len(history.samples) == MAX_SAMPLES
        assert history.samples[0].at == 5.0
        assert history.taken == MAX_SAMPLES + 5

    kept(test)
