"""What all listeners of a balancer have in common."""

import asyncio
import errno
import json
import socket

import pytest

from paddler.balancer.app import Balancer, explain_bind_error
from paddler.config import Address
from paddler.errors import StartError
from tests.balancer.services.running import (
    DESIRED_STATE,
    JSON_TYPE,
    Running,
    config_of,
    local,
    on_balancer,
)
from tests.e2e.fleet import free_ports
from tests.net.peers import Answer

RAW_PROMPT = "/api/v1/continue_from_raw_prompt"
CHAT = "/v1/chat/completions"
PREFLIGHT = "Access-Control-Request-Method: POST\r\n"


def test_health_is_ok_without_agents() -> None:
    async def test(running: Running) -> None:
        for port in (running.management, running.inference, running.openai):
            answer = await running.get(port, "/health")
            assert (answer.status, answer.body) == (200, b"OK")
            assert answer.headers.get("content-type") == "text/plain; charset=utf-8"

    on_balancer(test)


def test_an_unknown_path_is_404_without_a_body() -> None:
    async def test(running: Running) -> None:
        for port in (running.management, running.inference):
            answer = await running.get(port, "/nowhere")
            assert (answer.status, answer.body) == (404, b"")

    on_balancer(test)


def test_a_wrong_method_is_405_and_says_which_are_right() -> None:
    async def test(running: Running) -> None:
        for port, path, allowed in (
            (running.management, DESIRED_STATE, "GET, PUT"),
            (running.inference, RAW_PROMPT, "POST"),
            (running.openai, CHAT, "POST"),
            (running.panel, "/", "GET"),
        ):
            answer = await running.ask(port, "DELETE", path)
            assert (answer.status, answer.headers.get("allow")) == (405, allowed)

    on_balancer(test)


def test_errors_of_the_openai_listener_are_json() -> None:
    async def test(running: Running) -> None:
        missing = await running.get(running.openai, "/nowhere")
        wrong = await running.get(running.openai, CHAT)
        for answer, status in ((missing, 404), (wrong, 405)):
            assert answer.status == status
            assert answer.headers.get("content-type") == "application/json"
            error = json.loads(answer.body)["error"]
            assert error["code"] is None
            assert error["type"] == "invalid_request_error"

    on_balancer(test)


def test_a_body_past_the_limit_is_413() -> None:
    async def test(running: Running) -> None:
        fields = JSON_TYPE + "Content-Length: 4097\r\n"
        for port, path in ((running.inference, RAW_PROMPT), (running.openai, CHAT)):
            answer = await running.ask(port, "POST", path, fields=fields)
            assert answer.status == 413

    on_balancer(test, "--max-body-bytes", "4096")


async def preflight(running: Running, port: int, origin: str) -> Answer:
    return await running.ask(port, "OPTIONS", "/health", fields=f"Origin: {origin}\r\n{PREFLIGHT}")


def test_origins_are_allowed_by_flags() -> None:
    async def test(running: Running) -> None:
        for port, origin in (
            (running.management, "http://ops"),
            (running.inference, "http://app"),
            (running.openai, "http://app"),
            (running.management, f"http://127.0.0.1:{running.panel}"),
            (running.inference, f"http://127.0.0.1:{running.panel}"),
        ):
            answer = await preflight(running, port, origin)
            assert answer.status == 200
            assert answer.headers.get("access-control-allow-origin") == origin
            assert answer.headers.get("access-control-max-age") == "3600"
        for port, origin in ((running.management, "http://app"), (running.inference, "null")):
            answer = await preflight(running, port, origin)
            assert answer.status == 400
            assert answer.headers.get("access-control-allow-origin") is None

    on_balancer(
        test,
        *("--management-cors-allowed-host", "http://ops"),
        *("--inference-cors-allowed-host", "http://app"),
    )


FLAGS = ("--management-addr", "--inference-addr", "--compat-openai-addr", "--web-admin-panel-addr")


@pytest.mark.parametrize("taken_flag", FLAGS)
def test_a_taken_port_stops_the_start_and_frees_the_others(taken_flag: str) -> None:
    ports = free_ports(4)
    addresses = [word for f, p in zip(FLAGS, ports, strict=True) for word in (f, local(p))]
    port = ports[FLAGS.index(taken_flag)]

    async def start() -> None:
        async with Balancer(config_of(*addresses)).running():
            pytest.fail("it started")

    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(StartError, match=f"{taken_flag}: port {port} on 127.0.0.1 is already"):
            asyncio.run(start())
        for other in set(ports) - {port}:
            socket.create_server(("127.0.0.1", other)).close()


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EADDRINUSE, "port 80 on 10.0.0.1 is already in use"),
        (errno.EACCES, "port 80 on 10.0.0.1 needs more rights"),
        (errno.EADDRNOTAVAIL, "port 80 on 10.0.0.1 is not an address of this machine"),
        (errno.ENOBUFS, "cannot be listened on: No buffer space"),
    ],
)
def test_why_an_address_cannot_be_listened_on_is_said_plainly(number: int, reason: str) -> None:
    address = Address(text="a:80", host="10.0.0.1", port=80)
    said = explain_bind_error("--inference-addr", address, OSError(number, "No buffer space"))
    assert reason in said
    assert said.endswith("choose another with --inference-addr HOST:PORT")
