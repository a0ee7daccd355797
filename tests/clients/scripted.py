"""A balancer with an agent whose answers are written down, for real clients to talk to."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence

from paddler.messages import link as wire
from paddler.messages.link import FrameKind
from tests.balancer.services.running import Agent, Running

Frame = tuple[FrameKind, bytes]
Turn = Callable[[Agent, wire.StartStream], None]
"""Answers one request of the agent's."""


def content(*pieces: str) -> list[Frame]:
    """What the model says."""
    return [(FrameKind.CONTENT, _escaped(piece)) for piece in pieces]


def reasoning(*pieces: str) -> list[Frame]:
    """What the model thinks."""
    return [(FrameKind.REASONING, _escaped(piece)) for piece in pieces]


def call(index: int, name: str, *pieces: str, given_id: str | None = None) -> list[Frame]:
    """A tool call: its name, then its arguments in pieces."""
    deltas = [
        wire.CallDelta(index, name=name, id=given_id),
        *(wire.CallDelta(index, arguments=piece) for piece in pieces),
    ]
    return [(FrameKind.CALL, wire.encode(delta)) for delta in deltas]


def answer(*frames: Frame, reason: str = "stop") -> Turn:
    """An answer of these frames."""

    def play(agent: Agent, start: wire.StartStream) -> None:
        for kind, payload in frames:
            agent.say(start.stream_id, kind, payload)
        agent.finish(start.stream_id, reason)

    return play


def echo_of_the_last_message(agent: Agent, start: wire.StartStream) -> None:
    """An answer that repeats what the agent was told last."""
    assert isinstance(start.job, wire.ChatJob)
    text = start.job.request.messages[-1].content
    assert isinstance(text, str)
    answer(*content(text))(agent, start)


def failure(variant: str, detail: object, *frames: Frame) -> Turn:
    """An answer that begins with these frames and ends in an error."""

    def play(agent: Agent, start: wire.StartStream) -> None:
        for kind, payload in frames:
            agent.say(start.stream_id, kind, payload)
        agent.fail(start.stream_id, {variant: detail})

    return play


@contextlib.asynccontextmanager
async def playing(
    running: Running, turns: Sequence[Turn], *, slots: int = 1
) -> AsyncIterator[list[wire.StartStream]]:
    """An agent that takes these turns, all of which must come; what it was asked."""
    agent = await Agent.join(running, slots=slots)
    asked: list[wire.StartStream] = []

    async def play() -> None:
        for turn in turns:
            start = await agent.hear_start()
            asked.append(start)
            turn(agent, start)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(play())
        yield asked
        await task


def _escaped(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()
