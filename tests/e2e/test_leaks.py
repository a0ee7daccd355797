"""Nothing stays behind: connections, descriptors, slots and memory are counted before and after."""

import contextlib
import json
import os
import random
import resource
import socket

import pytest

from tests.e2e.fleet import Fleet, ask, raw_prompt, wait_until

IDLE_CONNECTIONS = 2000
CUT_REQUESTS = 200
MEMORY_SLACK_BYTES = 24 * 1024 * 1024


@pytest.fixture(autouse=True)
def many_descriptors() -> None:
    """Room for this test's own end of all those connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))


def http_request(body: bytes) -> bytes:
    return (
        b"POST /api/v1/continue_from_raw_prompt HTTP/1.1\r\nhost: a\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )


def open_and_close_idle_connections(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE_CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))


def cut_requests_at_random(port: int, seed: int) -> None:
    """Send a part of a request, or all of it and read a part of the answer, then leave."""
    randomness = random.Random(seed)
    wire = http_request(json.dumps(raw_prompt("Once upon a time", 50)).encode())
    for _ in range(CUT_REQUESTS):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            cut = randomness.randint(0, len(wire) * 2)
            sock.sendall(wire[:cut])
            if cut >= len(wire):
                sock.recv(randomness.randint(1, 400))


def test_idle_and_cut_connections_leave_nothing_behind(fleet: Fleet) -> None:
    balancer = fleet.balancer
    (agent,) = fleet.agents
    assert balancer is not None
    # The first round fills caches and free lists, which is no leak.
    open_and_close_idle_connections(fleet.inference)
    cut_requests_at_random(fleet.inference, seed=1)
    fleet.wait_idle()
    wait_until(lambda: fleet.buffered() == 0, "nobody waits")
    watched = [balancer, agent] if os.getuid() == 0 else [balancer]  # agents show theirs to root
    before = [process.descriptors() for process in watched]
    memory_before = balancer.memory_bytes()

    open_and_close_idle_connections(fleet.inference)
    cut_requests_at_random(fleet.inference, seed=2)
    fleet.wait_idle()
    wait_until(lambda: fleet.buffered() == 0, "nobody waits")
    wait_until(
        lambda: all(
            process.descriptors() <= count for process, count in zip(watched, before, strict=True)
        ),
        f"descriptors are back at {before}",
    )
    assert balancer.memory_bytes() - memory_before < MEMORY_SLACK_BYTES
    assert len(ask(fleet.inference, raw_prompt("Still", 3))) == 4
