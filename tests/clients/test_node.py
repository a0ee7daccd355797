"""OpenAI's client for Node, and an agent by the AI SDK, before an agent played by the test."""

import asyncio
from pathlib import Path

import pytest

from paddler.messages import link
from tests.balancer.services.running import Running, on_balancer
from tests.clients.node_clients import require_node_clients, run_script
from tests.clients.openai_tap import Tap
from tests.clients.scripted import answer, call, echo_of_the_last_message, playing, reasoning
from tests.clients.test_openai_python import CALLS


@pytest.fixture(scope="module", autouse=True)
def _node() -> None:
    require_node_clients()


@pytest.mark.parametrize("stream", ["false", "true"])
def test_the_clients_tools_loop_comes_to_its_end(stream: str) -> None:
    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            async with playing(running, [CALLS, echo_of_the_last_message, CALLS]):
                await asyncio.to_thread(run_script, "tools.mjs", tap.url, STREAM=stream)

    on_balancer(test)


def test_errors_are_raised_as_what_they_are_and_tried_again_where_it_helps() -> None:
    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            await asyncio.to_thread(run_script, "errors.mjs", tap.url)
            assert [exchange.status for exchange in tap.exchanges].count(503) == 2

    on_balancer(test, "--max-buffered-requests", "0")


def test_an_agent_reads_a_file_by_its_tool_and_tells_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "marker.txt"
    path.write_text("PADDLER-MARKER 🌞")
    reads = answer(
        *reasoning("It is ", "in a file."), *call(0, "read", '{"path":', f'"{path}"', "}")
    )

    async def test(running: Running) -> None:
        with Tap(running.openai) as tap:
            async with playing(running, [reads, echo_of_the_last_message]) as asked:
                told = await asyncio.to_thread(run_script, "agent.mjs", tap.url)
            first, second = (exchange.request for exchange in tap.exchanges)
        assert told == "PADDLER-MARKER 🌞"
        assert first["stream_options"] == {"include_usage": True}
        assert "$schema" in first["tools"][0]["function"]["parameters"]
        assert [message["role"] for message in second["messages"]] == [
            "system",
            "user",
            "assistant",
            "tool",
        ]
        job = asked[1].job
        assert isinstance(job, link.ChatJob)
        assert job.request.messages[2].tool_calls is not None

    on_balancer(test)
