"""The agent socket: who may join, and what is told to whom."""

import asyncio

import msgspec
import pytest

from paddler import __version__
from paddler.messages import link as wire
from paddler.messages.agents import AgentStatus
from paddler.messages.state import DEFAULT_DESIRED_STATE, ModelSource
from paddler.net.client import ConnectFailed
from tests.balancer.services.running import Agent, Running, hello, on_balancer

ASKED = msgspec.structs.replace(DEFAULT_DESIRED_STATE, model=ModelSource(local_to_agent="/a"))


def test_a_hello_is_answered_with_a_welcome_and_the_state() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.dial(running)
        agent.send(hello())
        assert await agent.hear() == wire.Welcome(wire.PROTOCOL_VERSION, __version__)
        assert await agent.hear() == wire.SetState(
            running.balancer.state.applicable, is_default=True
        )
        agent.leave()
        await agent.closed()

    on_balancer(test)


def test_a_new_state_is_told_to_every_agent() -> None:
    async def test(running: Running) -> None:
        agents = [await Agent.join(running, f"id-{n}") for n in range(3)]
        await running.put_state(ASKED)
        for agent in agents:
            assert await agent.hear() == wire.SetState(running.balancer.state.applicable)

    on_balancer(test)


def test_a_fleet_that_comes_at_once_is_welcome_and_leaves_nothing() -> None:
    async def test(running: Running) -> None:
        names = [f"gpu-{number:03}" for number in range(300)]
        agents = await asyncio.gather(*(Agent.join(running, name, name, 2) for name in names))
        assert [agent["name"] for agent in await running.agents()] == names
        assert running.balancer.pool.slots_total == 600
        await running.put_state(ASKED)
        for agent in agents:
            assert isinstance(await agent.hear(), wire.SetState)
            agent.leave()
        while running.management_connections() > 0:
            await asyncio.sleep(0)
        assert (running.balancer.pool.slots_total, await running.agents()) == (0, [])

    on_balancer(test)


def test_two_agents_of_one_name_are_two() -> None:
    async def test(running: Running) -> None:
        for agent_id in ("id-1", "id-2"):
            await Agent.join(running, agent_id, "gpu")
        assert [(a["name"], a["id"]) for a in await running.agents()] == [
            ("gpu", "id-1"),
            ("gpu", "id-2"),
        ]
        assert running.balancer.pool.slots_total == 2

    on_balancer(test)


def test_another_version_of_the_protocol_is_refused_and_both_are_named() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.dial(running)
        agent.send(hello(protocol=99))
        refusal = await agent.hear()
        assert isinstance(refusal, wire.Refused)
        assert f"agent {__version__} speaks link protocol 99" in refusal.reason
        assert f"balancer {__version__} speaks {wire.PROTOCOL_VERSION}" in refusal.reason
        assert await agent.closed() == (1008, "link protocol versions differ")
        assert await running.agents() == []
        # It tries again and again, which is no news.
        again = await Agent.dial(running)
        again.send(hello(protocol=99))
        await again.closed()
        (event,) = running.balancer.journal.after(0)
        assert (event.kind, event.agent_id) == ("agent_refused", "id-1")
        assert event.text == f'agent "gpu-1" was refused: {refusal.reason}'

    on_balancer(test)


@pytest.mark.parametrize(
    "message", [wire.StatusReport(AgentStatus(desired_slots_total=1)), wire.Goodbye()]
)
def test_a_hello_comes_first(message: wire.FromAgent) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.dial(running)
        agent.send(message)
        assert await agent.closed() == (1002, "the first message must be a hello")

    on_balancer(test)


def test_a_hello_comes_once() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        agent.send(hello())
        assert await agent.closed() == (1002, "a second hello on one connection")
        assert await running.agents() == []

    on_balancer(test)


@pytest.mark.parametrize("data", [b"{", b'{"type":"news"}', b'{"type":"hello"}'])
def test_a_message_that_makes_no_sense_ends_the_link(data: bytes) -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        agent.send_text(data)
        code, reason = await agent.closed()
        assert code == 1007
        assert reason.startswith("control message: ")
        assert await running.agents() == []

    on_balancer(test)


def test_of_two_links_of_one_agent_the_newer_wins() -> None:
    async def test(running: Running) -> None:
        older = await Agent.join(running, name="older")
        newer = await Agent.join(running, name="newer")
        assert await older.closed() == (1008, "replaced by a newer connection of the same agent")
        assert [agent["name"] for agent in await running.agents()] == ["newer"]
        await running.put_state(ASKED)
        assert isinstance(await newer.hear(), wire.SetState)

    on_balancer(test)


def test_operators_see_what_an_agent_reports_until_it_leaves() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        agent.send(wire.StatusReport(AgentStatus(desired_slots_total=1, download_total=9)))
        while (await running.agents())[0]["download_total"] != 9:
            pass  # the report is on its way
        agent.send(wire.Goodbye())
        agent.leave()
        await agent.closed()
        assert await running.agents() == []

    on_balancer(test)


@pytest.mark.parametrize("agent_id", ["a.b", "%20", "x" * 65, "%C3%A9"])
def test_an_id_that_is_not_safe_in_addresses_is_refused(agent_id: str) -> None:
    async def test(running: Running) -> None:
        with pytest.raises(ConnectFailed, match=r"answered 400: agent id .* expected up to 64"):
            await Agent.dial(running, agent_id)

    on_balancer(test)


def test_the_socket_is_a_websocket_only() -> None:
    async def test(running: Running) -> None:
        answer = await running.get(running.management, "/api/v1/agent_socket/id-1")
        assert answer.status == 400
        assert b"speaks WebSocket only" in answer.body

    on_balancer(test)


def test_a_web_page_cannot_join_as_an_agent() -> None:
    async def test(running: Running) -> None:
        upgrade = (
            "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\norigin: https://any.example\r\n"
        )
        answer = await running.get(running.management, "/api/v1/agent_socket/x", upgrade)
        assert answer.status == 403
        assert (await running.get(running.management, "/api/v1/agents")).body == b'{"agents":[]}'

    on_balancer(test)
