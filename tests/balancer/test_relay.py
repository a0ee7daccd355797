"""One request's life, on links whose agents are played by the test."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from paddler.balancer.affinity import PrefixIndex
from paddler.balancer.link import AgentLink, Completed, Concluded
from paddler.balancer.pool import Agent, Pool
from paddler.balancer.records import RequestOutcome, RequestRecord
from paddler.balancer.relay import Dispatcher, Outcome, outcome_of
from paddler.balancer.waitline import Waitline
from paddler.messages import link as wire
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ContinueFromRawPrompt,
    Failure,
    Tool,
    ToolFunction,
    ToolParameters,
)
from paddler.messages.link import (
    FRAME_FINAL,
    FrameKind,
    Job,
    RawPromptJob,
    encode_data_frame,
)
from tests.balancer.test_link import DONE, JOB, Outlet, Socket
from tests.balancer.test_pool import status


class Player:
    """An agent played by the test."""

    def __init__(self, pool: Pool, name: str, slots: int) -> None:
        self.socket = Socket()
        self.link = AgentLink(self.socket, asyncio.get_running_loop().time)
        self.agent: Agent = pool.join(name, name, status(slots), self.link)
        self._pool = pool

    @property
    def started(self) -> list[int]:
        return [m.stream_id for m in self.socket.sent if isinstance(m, wire.StartStream)]

    @property
    def stopped(self) -> list[int]:
        return [m.stream_id for m in self.socket.sent if isinstance(m, wire.StopStream)]

    def say(self, stream_id: int, kind: FrameKind, payload: bytes, flags: int = 0) -> None:
        self.link.on_data(memoryview(encode_data_frame(stream_id, kind, payload, flags)))

    def finish(self, stream_id: int) -> None:
        self.say(stream_id, FrameKind.DONE, DONE, FRAME_FINAL)

    def die(self) -> None:
        self._pool.leave(self.agent)
        self.link.on_lost()


class Stage:
    """A dispatcher and what it needs."""

    def __init__(self, *, limit: int = 10, item_timeout_s: float = 60.0) -> None:
        self.pool = Pool()
        self.waitline = Waitline(self.pool, limit=limit, timeout_s=60.0)
        self.records: list[RequestRecord] = []
        self.dispatcher = Dispatcher(
            self.pool,
            self.waitline,
            item_timeout_s=item_timeout_s,
            listeners=(self.records.append,),
            prefixes=PrefixIndex(),
        )
        self.outlet = Outlet()

    async def ask(self, job: Job = JOB) -> asyncio.Task[Outcome]:
        task = asyncio.create_task(self.dispatcher.run(job, self.outlet, route="test"))
        await settle()
        return task


async def settle() -> None:
    """Let every task run until it waits for something."""
    for _ in range(5):
        await asyncio.sleep(0)


def play(test: Callable[[Stage], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def run() -> None:
        await test(Stage(**options))

    asyncio.run(run())


def test_a_request_is_served() -> None:
    async def test(stage: Stage) -> None:
        player = Player(stage.pool, "a", 1)
        answer = await stage.ask()
        (stream_id,) = player.started
        player.say(stream_id, FrameKind.CONTENT, b"hi")
        player.finish(stream_id)
        assert isinstance(await answer, Completed)
        assert stage.outlet.written == [b"<hi>"]
        assert stage.pool.slots_busy == 0

    play(test)


def test_a_lost_agent_is_replaced_before_the_first_token() -> None:
    async def test(stage: Stage) -> None:
        first = Player(stage.pool, "a", 1)
        answer = await stage.ask()
        second = Player(stage.pool, "b", 1)
        first.die()
        await settle()
        (stream_id,) = second.started
        second.finish(stream_id)
        outcome = await answer
        assert isinstance(outcome, Completed)
        assert outcome.agent is second.agent

    play(test)


def test_a_request_given_back_waits_for_the_next_slot() -> None:
    async def test(stage: Stage) -> None:
        player = Player(stage.pool, "a", 1)
        answer = await stage.ask()
        (stream_id,) = player.started
        stage.pool.update(player.agent, status(0))  # as an agent does before it hands back
        player.say(stream_id, FrameKind.RETURNED, b'{"reason":"swap"}', FRAME_FINAL)
        await settle()
        assert stage.waitline.waiting == 1
        stage.pool.update(player.agent, status(1))
        await settle()
        player.finish(player.started[-1])
        assert isinstance(await answer, Completed)

    play(test)


def test_a_lost_agent_is_named_after_the_first_token() -> None:
    async def test(stage: Stage) -> None:
        first = Player(stage.pool, "a", 1)
        answer = await stage.ask()
        Player(stage.pool, "b", 1)
        first.say(first.started[0], FrameKind.CONTENT, b"hi")
        first.die()
        assert await answer == Failure(502, "Agent controller connection closed")

    play(test)


def test_the_third_loss_is_told() -> None:
    async def test(stage: Stage) -> None:
        answer = None
        for name in "abc":
            player = Player(stage.pool, name, 1)
            answer = answer or await stage.ask()
            await settle()
            player.die()
            await settle()
        assert answer is not None
        assert await answer == Failure(502, "Agent controller connection closed")

    play(test)


def test_a_client_that_leaves_stops_its_stream() -> None:
    async def test(stage: Stage) -> None:
        player = Player(stage.pool, "a", 1)
        answer = await stage.ask()
        answer.cancel()
        await settle()
        assert player.stopped == player.started
        assert stage.pool.slots_busy == 1
        player.finish(player.started[0])
        assert stage.pool.slots_busy == 0

    play(test)


def test_no_slot_and_no_line_is_an_overflow() -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.ask()
        assert await answer == Failure(503, "Buffered requests overflow")

    play(test, limit=0)


def test_an_item_timeout_of_zero_ends_every_request() -> None:
    async def test(stage: Stage) -> None:
        player = Player(stage.pool, "a", 1)
        outcome = await (await stage.ask())
        assert isinstance(outcome, Failure)
        assert outcome.code == 504
        assert "after 0ms" in outcome.description
        assert player.started == []
        assert stage.pool.slots_busy == 0

    play(test, item_timeout_s=0.0)


def test_stopping_ends_what_runs_and_what_waits() -> None:
    async def test(stage: Stage) -> None:
        Player(stage.pool, "a", 1)
        running, waiting = await stage.ask(), await stage.ask()
        stage.dispatcher.stop()
        failure = Failure(503, "balancer is shutting down")
        assert [await running, await waiting] == [failure, failure]

    play(test)


def test_a_lost_agent_is_named_when_no_other_takes_over() -> None:
    async def test(stage: Stage) -> None:
        only = Player(stage.pool, "a", 1)
        answer = await stage.ask()
        only.die()
        assert await answer == Failure(502, "Agent controller connection closed")

    play(test, limit=0)


def test_a_result_that_was_heard_is_not_told_twice() -> None:
    async def test(stage: Stage) -> None:
        first = Player(stage.pool, "a", 1)
        answer = await stage.ask()
        Player(stage.pool, "b", 1)
        first.say(first.started[0], FrameKind.EMBEDDING, b"{}")
        first.die()
        assert await answer == Failure(502, "Agent controller connection closed")

    play(test)


def test_a_request_that_cannot_be_sent_on_takes_no_slot() -> None:
    async def test(stage: Stage) -> None:
        Player(stage.pool, "a", 1)
        nested: dict[str, Any] = {}
        for _ in range(100_000):
            nested = {"a": nested}
        parameters = ToolParameters(type="object", properties=nested)
        request = ContinueFromConversationHistory(
            add_generation_prompt=True,
            conversation_history=[],
            enable_thinking=False,
            max_tokens=1,
            tools=[Tool(ToolFunction("f", "", parameters))],
        )
        outcome = await stage.dispatcher.run(
            wire.ConversationJob(request), stage.outlet, route="test"
        )
        assert outcome == Failure(400, "the request is nested too deeply")
        assert stage.pool.slots_busy == 0

    play(test)


# --- records ------------------------------------------------------------------------------------


def test_a_request_that_was_served_leaves_a_record() -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.ask()
        assert stage.records == []
        player = Player(stage.pool, "a", 1)  # it waited for this one
        await settle()
        (stream_id,) = player.started
        for _ in range(3):
            player.say(stream_id, FrameKind.CONTENT, b"hi")
        player.finish(stream_id)
        await answer
        (record,) = stage.records
        assert (record.route, record.outcome) == ("test", RequestOutcome.COMPLETED)
        assert record.waited_s > 0
        assert record.first_token_s is not None
        assert record.first_token_s >= record.waited_s
        assert record.token_gap_s is not None
        assert (record.prompt_tokens, record.generated_tokens) == (1, 2)

    play(test)


def test_a_failover_is_part_of_the_record() -> None:
    async def test(stage: Stage) -> None:
        first = Player(stage.pool, "a", 1)
        answer = await stage.ask()
        second = Player(stage.pool, "b", 1)
        first.die()
        await settle()
        second.finish(second.started[0])
        await answer
        (record,) = stage.records
        assert (record.failovers, record.first_token_s, record.token_gap_s) == (1, None, None)

    play(test)


def test_a_client_that_leaves_is_recorded_as_cancelled() -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.ask()
        answer.cancel()
        await settle()
        (record,) = stage.records
        assert record.outcome is RequestOutcome.CANCELLED

    play(test)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Failure(503, "Buffered requests overflow"), RequestOutcome.LINE_FULL),
        (Failure(504, "Waiting for available slot timed out"), RequestOutcome.WAITED_TOO_LONG),
        (Failure(503, "balancer is shutting down"), RequestOutcome.STOPPING),
        (Failure(504, "Inference timed out after 1ms"), RequestOutcome.STALLED),
        (Failure(502, "gone"), RequestOutcome.AGENT_LOST),
        (Failure(400, "nested"), RequestOutcome.REJECTED),
        (Failure(499, "slow"), RequestOutcome.CANCELLED),
        (None, RequestOutcome.CANCELLED),
    ],
)
def test_each_failure_has_a_name(outcome: Failure | None, expected: RequestOutcome) -> None:
    assert outcome_of(outcome) is expected


@pytest.mark.parametrize(
    ("payload", "is_refusal", "expected"),
    [
        (b'"Done"', False, RequestOutcome.COMPLETED),
        (b'"NoEmbeddingsProduced"', False, RequestOutcome.COMPLETED),
        (b'{"SamplerError":"no"}', False, RequestOutcome.FAILED),
        (b'{"ChatTemplateError":"no"}', True, RequestOutcome.REJECTED),
    ],
)
def test_what_an_agent_concludes_has_a_name(
    payload: bytes, is_refusal: bool, expected: RequestOutcome
) -> None:
    async def test(stage: Stage) -> None:
        agent = Player(stage.pool, "a", 1).agent
        assert outcome_of(Concluded(payload, agent, is_refusal)) is expected

    play(test)


def test_a_conversation_stays_with_its_agent_as_long_as_that_is_not_busier() -> None:
    async def test(stage: Stage) -> None:
        players = {name: Player(stage.pool, name, 4) for name in "abc"}
        text = "A beginning that all of them have. " * 20

        async def ask(text: str) -> tuple[str, asyncio.Task[Outcome]]:
            before = {name: len(player.started) for name, player in players.items()}
            request = ContinueFromRawPrompt(raw_prompt=text, max_tokens=1)
            task = await stage.ask(RawPromptJob(request))
            (name,) = (n for n, p in players.items() if len(p.started) > before[n])
            return name, task

        home, task = await ask(text)
        for turn in range(4):
            players[home].finish(players[home].started[-1])
            await task
            text += f" turn {turn}"
            name, task = await ask(text)
            assert name == home
        others = [await ask(text) for _ in range(5)]  # now it is busier: they are spread
        assert [stage.pool.busy(player.agent) for player in players.values()] == [2, 2, 2]
        for player in players.values():
            for stream_id in player.started:
                player.finish(stream_id)
        for _, each in (*others, (home, task)):
            assert isinstance(await each, Completed)

    play(test)
