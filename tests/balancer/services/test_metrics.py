"""Metrics on a real balancer, read by Prometheus' own parser."""

import asyncio
import socket

from prometheus_client.parser import text_string_to_metric_families

from tests.balancer.services.running import Agent, Running, on_balancer


async def metrics(running: Running) -> dict[tuple[str, ...], float]:
    """Values by name and labels, these in the order of their names."""
    answer = await running.get(running.management, "/metrics")
    assert answer.status == 200
    content_type = "text/plain; version=0.0.4; charset=utf-8; escaping=values"
    assert answer.headers.get("content-type") == content_type
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_the_gauges_that_every_client_knows_are_there() -> None:
    async def test(running: Running) -> None:
        await Agent.join(running, slots=3)
        values = await metrics(running)
        assert values["paddler_slots_processing",] == 0
        assert values["paddler_slots_total",] == 3
        assert values["paddler_requests_buffered",] == 0
        assert values["paddler_agents",] == 1
        assert values["paddler_connections", "management"] >= 1
        assert values["paddler_resident_memory_bytes",] > 1_000_000

    on_balancer(test)


def test_a_request_is_counted_and_timed() -> None:
    async def test(running: Running) -> None:
        agent = await Agent.join(running)
        body = {"raw_prompt": "x", "max_tokens": 1}
        asked = asyncio.create_task(
            running.post(running.inference, "/api/v1/continue_from_raw_prompt", body)
        )
        agent.finish((await agent.hear_start()).stream_id)
        await asked
        values = await metrics(running)
        assert values["paddler_requests_total", "completed", "raw_prompt"] == 1
        assert values["paddler_prompt_tokens_total",] == 5
        assert values["paddler_generated_tokens_total",] == 3
        assert values["paddler_wait_seconds_count",] == 1
        assert values["paddler_wait_seconds_bucket", "+Inf"] == 1

    on_balancer(test)


def test_a_balancer_sends_its_gauges_at_once_where_it_is_told_to() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.setblocking(False)

        async def test(running: Running) -> None:
            loop = asyncio.get_running_loop()
            assert [await loop.sock_recv(statsd, 1000) for _ in range(3)] == [
                b"paddler.slots_processing:0|g",
                b"paddler.slots_total:0|g",
                b"paddler.requests_buffered:0|g",
            ]

        address = f"127.0.0.1:{statsd.getsockname()[1]}"
        on_balancer(test, "--statsd-addr", address, "--statsd-prefix", "paddler")


def test_the_prefix_opens_every_name() -> None:
    async def test(running: Running) -> None:
        names = {name for name, *_ in await metrics(running)}
        assert all(name.startswith("fleet_a_") for name in names)
        assert "fleet_a_slots_total" in names

    on_balancer(test, "--statsd-prefix", "fleet.a.")
