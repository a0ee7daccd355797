"""What is left of an answer when it has ended: nothing, and nothing for the collection."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from paddler.balancer.services.outlet import StreamingOutlet
from paddler.messages.link import FrameKind
from tests.balancer.services.running import Agent, Running, on_balancer

TALK: dict[str, Any] = {"model": "m", "stream": True}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", TALK | {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/completions", TALK | {"prompt": "Once"}),
        ("/v1/responses", TALK | {"input": "Hi"}),
    ],
)
def test_a_streamed_answer_leaves_no_cycle_behind(
    monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    outlets: list[weakref.ref[StreamingOutlet]] = []
    enter = StreamingOutlet.__enter__

    def enter_and_note(outlet: StreamingOutlet) -> StreamingOutlet:
        outlets.append(weakref.ref(outlet))
        return enter(outlet)

    monkeypatch.setattr(StreamingOutlet, "__enter__", enter_and_note)

    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(running.post(running.openai, path, body))
        start = await agent.hear_start()
        agent.say(start.stream_id, FrameKind.CONTENT, b"Hello")
        agent.finish(start.stream_id)
        assert b"Hello" in (await asked).body
        while outlets[0]() is not None:  # its task has a last step to go
            await asyncio.sleep(0)
        agent.leave()

    on_balancer(test)
