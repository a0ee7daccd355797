"""What operators see and do beyond what other clients know, on a real balancer."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from paddler import __version__
from paddler.messages import link as wire
from paddler.messages.agents import AgentDetails, AgentStatus
from paddler.messages.state import DEFAULT_DESIRED_STATE, fingerprint
from tests.balancer.services.running import Agent, Running, on_balancer
from tests.balancer.services.test_live import Subscriber
from tests.net.peers import Answer

EVENTS = "/api/v1/events"
DETAILS = AgentDetails(host="box", started_at=1.0, phase="serving", devices=("CPU",))


async def act(running: Running, path: str) -> Answer:
    return await running.ask(running.management, "POST", path)


async def events(running: Running, query: str = "") -> list[dict[str, Any]]:
    answer = await running.get(running.management, EVENTS + query)
    assert answer.status == 200
    found: list[dict[str, Any]] = json.loads(answer.body)["events"]
    return found


def test_the_version_is_told() -> None:
    async def test(running: Running) -> None:
        answer = await running.get(running.management, "/api/v1/version")
        assert json.loads(answer.body)["version"] == __version__

    on_balancer(test)


# --- events and history -------------------------------------------------------------------------


def test_events_tell_what_happened() -> None:
    async def test(running: Running) -> None:
        await Agent.join(running)
        state = msgspec.to_builtins(DEFAULT_DESIRED_STATE) | {"model": {"LocalToAgent": "/m"}}
        await running.put_state(state)
        await running.put_state(state)  # the same again is no event
        joined, changed = await events(running)
        assert (joined["kind"], joined["agent_name"]) == ("agent_joined", "gpu-1")
        assert joined["detail"] == {"address": "127.0.0.1"}
        assert changed["kind"] == "state_changed"
        assert changed["detail"] == {"by": "127.0.0.1", "model": {"LocalToAgent": "/m"}}
        assert await events(running, f"?after={joined['id']}") == [changed]

    on_balancer(test)


@pytest.mark.parametrize("after", ["x", "-1", "1.5", ""])
def test_an_event_id_that_is_none_is_refused(after: str) -> None:
    async def test(running: Running) -> None:
        answer = await running.get(running.management, f"{EVENTS}?after={after}")
        assert answer.status == 400
        assert b"must be the id of an event" in answer.body

    on_balancer(test)


def test_events_are_streamed_and_resumed_by_their_id() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        async with Subscriber.of(running, f"{EVENTS}/stream") as subscriber:
            event_id, joined = await subscriber.event()
            assert (event_id, joined["kind"]) == (b"%d" % joined["id"], "agent_joined")
            agent.leave()
            event_id, left = await subscriber.event()
            assert (event_id, left["kind"]) == (b"%d" % (joined["id"] + 1), "agent_left")
        last_id = f"Last-Event-ID: {joined['id']}\r\n"
        async with Subscriber.of(running, f"{EVENTS}/stream", last_id) as resumed:
            assert (await resumed.event())[1] == left
        # An id of a balancer whose clock was ahead: begin anew.
        future = f"Last-Event-ID: {joined['id'] + 10**9}\r\n"
        async with Subscriber.of(running, f"{EVENTS}/stream", future) as anew:
            assert (await anew.event())[1] == joined

    on_balancer(test)


def test_history_is_there_from_the_first_second_on() -> None:
    async def test(running: Running) -> None:
        async with Subscriber.of(running, "/api/v1/history/stream") as subscriber:
            _, sample = await subscriber.event()
        answer = await running.get(running.management, "/api/v1/history")
        history = json.loads(answer.body)
        assert history["interval_s"] == 1.0
        assert sample in history["samples"]
        assert set(sample) == {
            *("at", "slots_busy", "slots_total", "waiting", "tokens"),
            *("first_token_ms", "requests", "errors"),
        }

    on_balancer(test)


# --- agents -------------------------------------------------------------------------------------


def test_details_are_shown_once_the_agent_has_told_them() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)

        async def report() -> dict[str, Any]:
            answer = await running.get(running.management, "/api/v1/agent_details")
            (one,) = json.loads(answer.body)["agents"]
            found: dict[str, Any] = one
            return found

        before = await report()
        assert (before["version"], before["address"]) == (__version__, "127.0.0.1")
        assert before["details"] is None
        assert before["connected_s"] >= before["last_seen_s"] >= 0
        agent.send(wire.DetailsReport(DETAILS))
        while (await report())["details"] is None:
            pass
        details = (await report())["details"]
        told = (details["host"], details["phase"], details["devices"])
        assert told == ("box", "serving", ["CPU"])
        assert set(details) == {
            *("host", "started_at", "engine", "devices", "threads", "cores", "memory_bytes"),
            *("phase", "load_fraction", "bytes_per_s", "seconds_left", "wanted_state"),
            *("applied_state", "loaded_model", "context_size", "slot_context_size", "notes"),
            *("worker_restarts", "reconnects"),
        }

    on_balancer(test)


def test_a_drained_agent_gets_no_requests_until_it_is_resumed() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        for _ in range(2):  # asking again changes nothing
            assert (await act(running, "/api/v1/agent/id-1/drain")).status == 204
        assert (await running.agents())[0]["slots_total"] == 0
        # Not even after it reports or dials again.
        status = AgentStatus(desired_slots_total=1, slots_total=1, model_path="/m")
        agent.send(wire.StatusReport(status))
        again = await Agent.join(running)
        assert (await running.agents())[0]["slots_total"] == 0
        body = {"raw_prompt": "x", "max_tokens": 1}
        asked = asyncio.create_task(
            running.post(running.inference, "/api/v1/continue_from_raw_prompt", body)
        )
        assert (await act(running, "/api/v1/agent/id-1/resume")).status == 204
        again.finish((await again.hear_start()).stream_id)
        assert b"Done" in (await asked).body
        kinds = [event["kind"] for event in await events(running)]
        assert kinds.count("agent_drained") == 1
        assert kinds[-1] == "agent_resumed"

    on_balancer(test)


def test_a_disconnected_agent_may_come_back() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        assert (await act(running, "/api/v1/agent/id-1/disconnect")).status == 204
        assert await agent.closed() == (1012, "disconnected by an operator")
        await Agent.join(running)
        assert len(await running.agents()) == 1
        texts = [event["text"] for event in await events(running)]
        assert 'agent "gpu-1" left: disconnected by an operator' in texts

    on_balancer(test)


@pytest.mark.parametrize("what", ["drain", "resume", "disconnect"])
def test_an_agent_that_is_not_there_is_named(what: str) -> None:
    async def test(running: Running) -> None:
        answer = await act(running, f"/api/v1/agent/nobody/{what}")
        assert (answer.status, answer.body) == (
            404,
            b"no agent with the id 'nobody' is connected",
        )

    on_balancer(test)


def test_a_drained_agent_that_ends_for_good_is_forgotten() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        await act(running, "/api/v1/agent/id-1/drain")
        agent.leave()  # it may come back
        await agent.closed()
        agent = await Agent.join(running)
        assert (await running.agents())[0]["slots_total"] == 0
        agent.send(wire.Goodbye())
        agent.leave()
        await agent.closed()
        await Agent.join(running)
        assert (await running.agents())[0]["slots_total"] == 1

    on_balancer(test)


def test_what_all_agents_are_to_run_can_be_compared_with_what_they_run() -> None:
    async def test(running: Running) -> None:
        async def desired() -> tuple[Any, str]:
            answer = await running.get(running.management, "/api/v1/agent_details")
            body = json.loads(answer.body)
            return body["desired_model"], body["desired_state"]

        agent = await Agent.join(running)
        model, before = await desired()
        assert model == "None"
        state = msgspec.to_builtins(DEFAULT_DESIRED_STATE) | {"model": {"LocalToAgent": "/m"}}
        await running.put_state(state)
        told = await agent.hear()
        assert isinstance(told, wire.SetState)
        assert await desired() == ({"LocalToAgent": "/m"}, fingerprint(told.state))
        assert fingerprint(told.state) != before

    on_balancer(test)


# --- templates ----------------------------------------------------------------------------------

RENDER = "/api/v1/chat_template/render"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (wire.Answer(1, "prompt"), {"text": "prompt", "error": None, "line": None}),
        (
            wire.Answer(1, error="line 7: unexpected '}'"),
            {"text": None, "error": "line 7: unexpected '}'", "line": 7},
        ),
        (wire.Answer(1, error="see line 7"), {"text": None, "error": "see line 7", "line": None}),
        (wire.Answer(1, error="no"), {"text": None, "error": "no", "line": None}),
    ],
)
def test_a_template_is_tried_on_an_agent(reply: wire.Answer, expected: dict[str, Any]) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        asked = asyncio.create_task(
            running.post(running.management, RENDER, {"template": "{{ messages }}"})
        )
        question = await agent.hear()
        assert isinstance(question, wire.Question)
        assert isinstance(question.ask, wire.RenderTemplate)
        assert question.ask.source == "{{ messages }}"
        assert len(question.ask.messages) > 1
        agent.send(reply)
        answer = await asked
        assert answer.status == 200
        assert json.loads(answer.body) == expected

    on_balancer(test)


def test_templates_are_tried_one_at_a_time() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)

        def trial(number: int) -> Coroutine[Any, Any, Answer]:
            return running.post(running.management, RENDER, {"template": str(number)})

        first = asyncio.create_task(trial(1))
        question = await agent.hear()
        impatient = asyncio.create_task(trial(2))
        while running.management_connections() < 3:  # the agent's, and both trials'
            await asyncio.sleep(0)
        impatient.cancel()
        third = asyncio.create_task(trial(3))
        assert isinstance(question, wire.Question)
        agent.send(wire.Answer(question.number, "1"))
        assert json.loads((await first).body)["text"] == "1"
        question = await agent.hear()
        assert isinstance(question, wire.Question)
        assert isinstance(question.ask, wire.RenderTemplate)
        assert question.ask.source == "3"  # nobody waits for the second any more
        agent.send(wire.Answer(question.number, "3"))
        assert json.loads((await third).body)["text"] == "3"

    on_balancer(test)


def test_without_an_agent_no_template_can_be_tried() -> None:
    async def test(running: Running) -> None:
        answer = await running.post(running.management, RENDER, {"template": ""})
        assert answer.status == 503

    on_balancer(test)


# --- readiness ----------------------------------------------------------------------------------


def test_a_fleet_is_ready_once_a_slot_is_there() -> None:
    async def test(running: Running) -> None:
        for port in (running.inference, running.openai):
            assert (await running.get(port, "/ready")).status == 503
        await Agent.join(running)
        for port in (running.inference, running.openai):
            assert (await running.get(port, "/ready")).status == 200

    on_balancer(test)
