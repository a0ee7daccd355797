import asyncio
from collections.abc import Coroutine
from typing import Any

from paddler.balancer.pool import Agent, Lease, Pool
from paddler.balancer.waitline import Refusal, Ticket, Waitline
from paddler.messages.agents import AgentStatus
from tests.balancer.test_pool import Link, join, status


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


class Line:
    """A waitline over a pool of one agent with one slot, and the tasks that wait in it."""

    def __init__(self, *, slots: int = 1, limit: int = 10, timeout_s: float = 60.0) -> None:
        self.pool = Pool()
        self.agent = join(self.pool, "a", slots)
        self.waitline = Waitline(self.pool, limit=limit, timeout_s=timeout_s)

    async def enter(self, ticket: Ticket | None = None) -> asyncio.Task[Lease | Refusal]:
        task = asyncio.create_task(self.ask(ticket))
        await asyncio.sleep(0)
        return task

    async def ask(self, ticket: Ticket | None = None) -> Lease | Refusal:
        return await self.waitline.wait_slot(ticket or self.waitline.take_ticket())

    async def lease(self, ticket: Ticket | None = None) -> Lease:
        answer = await self.ask(ticket)
        assert isinstance(answer, Lease)
        return answer


def test_a_free_slot_is_given_at_once() -> None:
    async def test() -> None:
        line = Line()
        assert (await line.lease()).agent is line.agent
        assert line.waitline.waiting == 0

    run(test())


def test_waiters_are_served_in_the_order_they_came() -> None:
    async def test() -> None:
        line = Line()
        lease = await line.lease()
        waiters = [await line.enter() for _ in range(3)]
        assert line.waitline.waiting == 3
        for waiter in waiters:
            lease.release()
            answer = await waiter
            assert isinstance(answer, Lease)
            lease = answer
        assert line.waitline.waiting == 0

    run(test())


def test_a_request_gets_the_agent_that_it_prefers() -> None:
    async def test() -> None:
        line = Line(slots=0)
        others = [join(line.pool, name, 1) for name in "bc"]
        ticket = line.waitline.take_ticket(lambda: others[1])
        assert (await line.lease(ticket)).agent is others[1]

    run(test())


def test_a_newcomer_does_not_overtake() -> None:
    async def test() -> None:
        line = Line()
        lease = await line.lease()
        first = await line.enter()
        newcomer = await line.enter()
        lease.release()
        assert isinstance(await first, Lease)
        assert not newcomer.done()
        newcomer.cancel()

    run(test())


def test_who_lost_a_slot_goes_first_even_past_the_limit() -> None:
    async def test() -> None:
        line = Line(limit=1)
        ticket = line.waitline.take_ticket()
        (await line.lease(ticket)).release()
        lease = await line.lease()
        waiting = await line.enter()
        returning = await line.enter(ticket)
        lease.release()
        assert isinstance(await returning, Lease)
        assert not waiting.done()
        waiting.cancel()

    run(test())


def test_a_full_line_refuses() -> None:
    async def test() -> None:
        line = Line(limit=1)
        await line.lease()
        waiting = await line.enter()
        assert await line.ask() is Refusal.LINE_FULL
        waiting.cancel()

    run(test())


def test_a_limit_of_zero_refuses_even_who_lost_a_slot() -> None:
    async def test() -> None:
        line = Line(limit=0)
        ticket = line.waitline.take_ticket()
        await line.lease(ticket)
        assert await line.ask() is Refusal.LINE_FULL
        assert await line.ask(ticket) is Refusal.LINE_FULL

    run(test())


def test_waiting_ends_at_the_timeout() -> None:
    async def test() -> None:
        line = Line(timeout_s=0.0)
        await line.lease()
        assert await line.ask() is Refusal.WAITED_TOO_LONG
        assert line.waitline.waiting == 0

    run(test())


def test_cancelling_gives_the_place_back() -> None:
    async def test() -> None:
        line = Line()
        lease = await line.lease()
        waiting = await line.enter()
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert line.waitline.waiting == 0
        lease.release()
        assert line.pool.slots_busy == 0

    run(test())


def test_cancelling_in_the_moment_of_the_hand_over_gives_the_slot_back() -> None:
    async def test() -> None:
        line = Line()
        lease = await line.lease()
        waiting = await line.enter()
        lease.release()  # hands the slot over
        assert line.pool.slots_busy == 1
        waiting.cancel()  # before the waiter could run
        await asyncio.wait((waiting,))
        assert waiting.cancelled()
        assert line.pool.slots_busy == 0

    run(test())


def test_a_cancelled_waiter_does_not_hold_up_the_next() -> None:
    async def test() -> None:
        line = Line()
        lease = await line.lease()
        first, second = await line.enter(), await line.enter()
        first.cancel()
        lease.release()
        assert isinstance(await second, Lease)
        await asyncio.wait((first,))

    run(test())


def test_a_joining_agent_serves_as_many_as_it_has_slots() -> None:
    async def test() -> None:
        line = Line(slots=0)
        waiters = [await line.enter() for _ in range(3)]
        other: Agent = line.pool.join("b", "b", status(2), Link())
        await asyncio.wait(waiters[:2])
        assert line.waitline.waiting == 1
        line.pool.update(other, AgentStatus(desired_slots_total=3, slots_total=3))
        assert isinstance(await waiters[2], Lease)

    run(test())


def test_stopping_sends_everybody_away_for_good() -> None:
    async def test() -> None:
        line = Line()
        await line.lease()
        waiting = await line.enter()
        line.waitline.stop()
        assert await waiting is Refusal.STOPPING
        assert await line.ask() is Refusal.STOPPING

    run(test())


def test_watchers_see_the_count_change() -> None:
    async def test() -> None:
        line = Line()
        counts: list[int] = []
        line.waitline.watch(lambda: counts.append(line.waitline.waiting))
        lease = await line.lease()
        waiting = await line.enter()
        lease.release()
        await waiting
        assert counts == [1, 0]

    run(test())


def test_those_who_lost_their_slots_return_in_the_order_they_came() -> None:
    async def test() -> None:
        line = Line(slots=3)
        tickets = [line.waitline.take_ticket() for _ in range(3)]
        leases = [await line.lease(ticket) for ticket in tickets]
        line.pool.leave(line.agent)
        returning = [await line.enter(ticket) for ticket in tickets]
        newcomer = await line.enter()
        other = line.pool.join("b", "b", status(1), Link())
        for task in returning:
            answer = await task
            assert isinstance(answer, Lease)
            assert answer.agent is other
            answer.release()
        assert isinstance(await newcomer, Lease)
        assert len(leases) == 3

    run(test())


def test_patience_is_one_for_all_waits_of_a_request() -> None:
    async def test() -> None:
        line = Line(timeout_s=60.0)
        ticket = line.waitline.take_ticket()
        lease = await line.lease()
        waiting = await line.enter(ticket)
        lease.release()
        await waiting
        assert ticket.patience_s < 60.0

    run(test())
