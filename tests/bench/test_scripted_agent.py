"""Scripted agents on a real balancer: what clients, operators and the balancer see of them."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from bench.scripted.fleet import ScriptedFleet
from bench.scripted.script import Script
from bench.scripted_agent import main
from paddler.config import Address
from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.balancer.services.running import JSON_TYPE, Running, on_balancer, request
from tests.e2e.fleet import free_ports
from tests.net.peers import Answer

RAW_PROMPT = "/api/v1/continue_from_raw_prompt"
CHAT = "/v1/chat/completions"
STAMP = re.compile(r"<t([0-9]+)>")
FAST = 200.0


def fleet_of(running: Running, count: int = 1, **script: Any) -> ScriptedFleet:
    """Agents for this balancer, not running yet."""
    address = Address("127.0.0.1", "127.0.0.1", running.management)
    return ScriptedFleet(
        address, count, Script(**{"slots": 2, "tokens_per_s": FAST} | script), seed=1
    )


async def ask(running: Running, max_tokens: int = 5) -> list[dict[str, Any]]:
    """The lines of one native answer."""
    body = {"raw_prompt": "Once upon a time", "max_tokens": max_tokens}
    return lines_of(await running.post(running.inference, RAW_PROMPT, body))


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    assert answer.status == 200
    return [json.loads(line) for line in answer.body.splitlines()]


def texts_of(lines: list[dict[str, Any]]) -> list[str]:
    """The tokens of an answer that ended well."""
    results = [line["Response"]["response"]["GeneratedToken"] for line in lines]
    assert "Done" in results[-1]
    return [result["ContentToken"] for result in results[:-1]]


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Return once ``condition`` holds; the balancer's test times out otherwise."""
    while True:
        result = condition()
        if result if isinstance(result, bool) else await result:
            return
        await asyncio.sleep(0.005)  # between two looks


def test_scripted_agents_answer_as_many_at_once_as_they_have_slots() -> None:
    async def test(running: Running) -> None:
        fleet = fleet_of(running, count=3, tokens=8)
        async with fleet.running():
            await fleet.wait_joined()
            assert running.balancer.pool.slots_total == 6
            answers = await asyncio.gather(*(ask(running, max_tokens=100) for _ in range(6)))
            assert [len(texts_of(lines)) for lines in answers] == [8] * 6
            assert running.balancer.pool.slots_busy == 0
        assert (fleet.tally.finished, fleet.tally.tokens) == (6, 48)

    on_balancer(test)


def test_scripted_agents_say_one_packet_for_all_their_slots() -> None:
    async def test(running: Running) -> None:
        fleet = fleet_of(running, slots=8, tokens=20, prefill_s=0.1)
        async with fleet.running():
            await fleet.wait_joined()
            await asyncio.gather(*(ask(running, max_tokens=20) for _ in range(8)))
        assert fleet.tally.tokens == 160
        assert fleet.tally.packets < 80  # 20 if all of them began in one step

    on_balancer(test)


@pytest.mark.parametrize(("max_tokens", "reason"), [(3, "length"), (4, "length"), (5, "stop")])
def test_scripted_answers_end_for_the_reason_that_they_give(max_tokens: int, reason: str) -> None:
    async def test(running: Running) -> None:
        async with fleet_of(running, tokens=4).running() as fleet:
            await fleet.wait_joined()
            body = {
                "model": "any",
                "max_tokens": max_tokens,
                "messages": [{"role": "user", "content": "Hi"}],
            }
            completion = json.loads((await running.post(running.openai, CHAT, body)).body)
        assert completion["choices"][0]["finish_reason"] == reason
        assert completion["usage"]["completion_tokens"] == min(4, max_tokens)

    on_balancer(test)


def test_scripted_stamps_tell_when_each_token_was_said() -> None:
    async def test(running: Running) -> None:
        async with fleet_of(running, is_stamped=True, prefill_s=0.05).running() as fleet:
            await fleet.wait_joined()
            began_ns = time.monotonic_ns()
            texts = texts_of(await ask(running))
            ended_ns = time.monotonic_ns()
        stamps = [int(found[1]) for found in map(STAMP.search, texts) if found is not None]
        assert len(stamps) == 5
        assert [began_ns, *stamps, ended_ns] == sorted([began_ns, *stamps, ended_ns])
        assert stamps[0] - began_ns >= 49_000_000
        # The pace is kept from the beginning: what comes late is made up for, so no gap is sure.

    on_balancer(test)


def test_scripted_agents_without_a_pace_answer_at_once() -> None:
    async def test(running: Running) -> None:
        async with fleet_of(running, tokens_per_s=0.0, tokens=50).running() as fleet:
            await fleet.wait_joined()
            assert len(texts_of(await ask(running, max_tokens=50))) == 50
            assert fleet.tally.packets == 1

    on_balancer(test)


def test_a_client_that_leaves_frees_a_scripted_slot() -> None:
    async def test(running: Running) -> None:
        async with fleet_of(running, tokens=100_000).running() as fleet:
            await fleet.wait_joined()
            reader, writer = await asyncio.open_connection("127.0.0.1", running.inference)
            body = json.dumps({"raw_prompt": "Hi", "max_tokens": 100_000}).encode()
            writer.write(request("POST", RAW_PROMPT, body, JSON_TYPE))
            await reader.readuntil(b"ContentToken")
            assert running.balancer.pool.slots_busy == 1
            writer.close()
            await until(lambda: running.balancer.pool.slots_busy == 0)
            assert fleet.tally.stopped == 1

    on_balancer(test)


def test_operators_see_scripted_agents_as_they_see_any() -> None:
    state = msgspec.to_builtins(DEFAULT_DESIRED_STATE) | {"model": {"LocalToAgent": "/m/a.gguf"}}

    async def test(running: Running) -> None:
        async with fleet_of(running, count=2).running() as fleet:
            await fleet.wait_joined()
            await running.put_state(state)

            async def is_applied() -> bool:
                return all(
                    (agent["model_path"], agent["state_application_status"])
                    == ("/m/a.gguf", "Applied")
                    for agent in await running.agents()
                )

            await until(is_applied)
            agents = await running.agents()
            assert [agent["name"] for agent in agents] == ["scripted-1", "scripted-2"]
            path = f"/api/v1/agent/{agents[0]['id']}/model_metadata"
            metadata = json.loads((await running.get(running.management, path)).body)
            assert metadata["metadata"]["general.name"] == "Scripted"
            details = [agent.details for agent in running.balancer.pool.agents]
            assert all(one is not None and one.phase == "serving" for one in details)

    on_balancer(test)


def test_scripted_agents_embed() -> None:
    parameters = msgspec.structs.replace(
        DEFAULT_DESIRED_STATE.inference_parameters, enable_embeddings=True
    )
    state = msgspec.structs.replace(DEFAULT_DESIRED_STATE, inference_parameters=parameters)

    async def test(running: Running) -> None:
        async with fleet_of(running).running() as fleet:
            await fleet.wait_joined()
            await running.put_state(state)
            body = {"model": "any", "input": ["one", "two"]}
            answer = await running.post(running.openai, "/v1/embeddings", body)
            vectors = [one["embedding"] for one in json.loads(answer.body)["data"]]
            assert vectors == [[0.5, -0.5, 0.5, -0.5]] * 2

    on_balancer(test)


def test_a_scripted_stall_is_silence_until_the_balancer_stops_it() -> None:
    async def test(running: Running) -> None:
        async with fleet_of(running, stall=1.0, tokens=10).running() as fleet:
            await fleet.wait_joined()
            lines = await ask(running, max_tokens=10)
            assert lines[-1]["Error"]["error"]["code"] == 504
            assert len(lines) == 6  # five tokens, then the fault
            await until(lambda: running.balancer.pool.slots_busy == 0)
            assert (fleet.tally.faults, fleet.tally.stopped) == (1, 1)

    on_balancer(test, "--inference-item-timeout", "300ms")


@pytest.mark.parametrize("fault", ["drop", "garbage"])
def test_a_scripted_agent_that_loses_its_link_comes_back(fault: str) -> None:
    async def test(running: Running) -> None:
        async with fleet_of(running, tokens=10, **{fault: 1.0}).running() as fleet:
            await fleet.wait_joined()
            lines = await ask(running, max_tokens=10)
            assert lines[-1]["Error"]["error"]["code"] == 502
            await until(lambda: fleet.tally.agents_joined == 2)
            assert fleet.tally.links_lost == 1

    on_balancer(test)


def test_scripted_agents_reconnect_again_and_again_if_asked() -> None:
    async def test(running: Running) -> None:
        async with fleet_of(running, count=2, reconnect_every_s=0.05).running() as fleet:
            await until(lambda: fleet.tally.agents_joined >= 6)
        assert fleet.tally.links_lost >= 4
        await until(lambda: len(running.balancer.pool) == 0)

    on_balancer(test)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--agents", "0"], "--agents: '0': expected a whole number from 1 on"),
        (["--slots", "2000"], "--slots: 2000: expected at most 1024"),
        (["--rate", "-1"], "--rate: '-1': expected a number from 0 on"),
        (["--stall", "1.5"], "--stall: '1.5': expected a chance from 0 to 1"),
        (["--stall", "0.6", "--drop", "0.6"], "chances that add up to 1 at most"),
        (["--duration", "0"], "--duration: '0': expected a number above 0"),
        (["--management-addr", "here"], "expected host:port"),
    ],
)
def test_scripted_agent_flags_that_make_no_sense_are_refused(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_scripted_agents_that_never_join_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    assert main(["--management-addr", f"127.0.0.1:{port}", "--duration", "0.5"]) == 1
    assert f"no agent joined 127.0.0.1:{port}: " in capsys.readouterr().err
