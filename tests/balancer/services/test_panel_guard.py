"""Whose requests the panel's listener takes."""

import asyncio
import socket
import threading

import pytest

from paddler.balancer.services.panel_guard import PanelGuard
from paddler.net.host_names import is_name_of_ours
from paddler.proto.events import Headers, RequestHead
from tests.balancer.services.running import DESIRED_STATE, JSON_TYPE, Running, on_balancer
from tests.net.peers import Answer, Client


@pytest.mark.parametrize(
    "name",
    [
        "127.0.0.1",
        "10.0.0.5",
        "203.0.113.9",
        "::1",
        "2001:db8::1",
        "fe80::1%eth0",
        "localhost",
        "panel.localhost",
        "balancer",
        "balancer.local",
        "balancer.internal",
        "balancer.lan",
        "nas.home.arpa",
        "a.b.test",
        "typed.example.com",
    ],
)
def test_names_that_no_stranger_can_own_are_the_panels(name: str) -> None:
    assert is_name_of_ours(name, {"typed.example.com"})


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "typed.example.com.evil.example",
        "sub.typed.example.com",
        "example.com",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.5.nip.io",
        "1.2.3",
        "notlocal.evillocal",
        "home.arpa.evil.example",
    ],
)
def test_names_that_anybody_can_own_are_not(name: str) -> None:
    assert not is_name_of_ours(name, {"typed.example.com"})
    assert is_name_of_ours(name, {"*"})


def test_the_machines_own_names_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Node-7.cluster.example")
    monkeypatch.setattr(socket, "getfqdn", lambda: "node-7.Fleet.example")
    guard = PanelGuard({"typed.example.com"})
    guard.learn_own_names()
    for thread in threading.enumerate():
        if thread.name == "own-name":
            thread.join()
    for host, is_known in (
        ("node-7.cluster.example:8062", True),
        ("node-7.fleet.example", True),
        ("typed.example.com", True),
        ("node-8.fleet.example", False),
    ):
        head = RequestHead(
            method="GET",
            target="/",
            path="/",
            query="",
            version_minor=1,
            headers=Headers([("host", host)]),
            has_body=False,
            keep_alive=True,
            expects_continue=False,
            upgrade=None,
        )
        assert (guard(head) is None) is is_known


# --- on the listener -----------------------------------------------------------------------------


async def ask(
    running: Running, host: str, method: str = "GET", path: str = "/", fields: str = ""
) -> Answer:
    async with Client(*await asyncio.open_connection("127.0.0.1", running.panel)) as client:
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
        return await client.ask(head.encode())


@pytest.mark.parametrize("path", ["/", "/static/panel.js", "/api/v1/agents", "/api/nowhere"])
def test_a_strange_host_is_refused_whatever_it_asks(path: str) -> None:
    async def test(running: Running) -> None:
        answer = await ask(running, "evil.example:8062", path=path)
        assert answer.status == 421
        said = answer.body.decode()
        assert "'evil.example'" in said
        assert "--web-admin-panel-allowed-host evil.example" in said

    on_balancer(test)


def test_a_host_that_is_none_is_refused() -> None:
    async def test(running: Running) -> None:
        answer = await ask(running, "a..b")
        assert answer.status == 421
        assert "'a..b' is no host name" in answer.body.decode()
        assert (await ask(running, "user@localhost")).status == 400  # no Host field at all

    on_balancer(test)


def test_hosts_are_allowed_by_flag() -> None:
    async def test(running: Running) -> None:
        for host in ("panel.example.com", "Panel.Example.com:443", "other.example"):
            assert (await ask(running, host)).status == 200
        assert (await ask(running, "third.example")).status == 421

    on_balancer(
        test,
        *("--web-admin-panel-allowed-host", "panel.example.com"),
        *("--web-admin-panel-allowed-host", "Other.example."),
    )


def test_any_host_is_allowed_by_a_star() -> None:
    async def test(running: Running) -> None:
        assert (await ask(running, "evil.example")).status == 200

    on_balancer(test, "--web-admin-panel-allowed-host", "*")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", DESIRED_STATE),
        ("POST", "/api/v1/agent/id-1/drain"),
        ("POST", "/api/v1/continue_from_raw_prompt"),
        ("POST", "/api/openai/v1/chat/completions"),
        ("DELETE", "/nowhere"),
        ("OPTIONS", DESIRED_STATE),
    ],
)
def test_other_pages_change_and_ask_nothing(method: str, path: str) -> None:
    async def test(running: Running) -> None:
        fields = f"Origin: http://evil.example\r\nContent-Length: 2\r\n{JSON_TYPE}"
        answer = await ask(running, "localhost", method, path, fields)
        assert answer.status == 403
        assert "'http://evil.example'" in answer.body.decode()
        assert answer.headers.get("access-control-allow-origin") is None

    on_balancer(test)


def test_a_request_without_a_page_is_let_in() -> None:
    async def test(running: Running) -> None:
        state = (await running.get(running.panel, DESIRED_STATE)).body
        put = await running.ask(running.panel, "PUT", DESIRED_STATE, state, JSON_TYPE)
        assert put.status == 204
        own = f"{JSON_TYPE}Origin: http://a\r\n"  # the host that tests send
        assert (await running.ask(running.panel, "PUT", DESIRED_STATE, state, own)).status == 204

    on_balancer(test)


def test_other_listeners_ask_nobody_for_a_host() -> None:
    async def test(running: Running) -> None:
        fields = "Origin: http://evil.example\r\n"
        for port in (running.management, running.inference, running.openai):
            answer = await running.get(port, "/health", fields)
            assert (answer.status, answer.body) == (200, b"OK")
            assert answer.headers.get("content-security-policy") is None

    on_balancer(test)
