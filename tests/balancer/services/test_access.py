"""Who may call which listener, over real connections."""

import asyncio
import base64
import json
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from paddler.balancer.protection import Protection
from paddler.errors import ConfigError
from paddler.net.client import ConnectFailed
from tests.balancer.services.running import (
    DESIRED_STATE,
    JSON_TYPE,
    Agent,
    Running,
    config_of,
    on_balancer,
    request,
)
from tests.net.peers import Client

KEY, OTHER_KEY, TOKEN = "key-of-search-0001", "key-of-support-002", "token-of-operators"
CHAT = {"model": "any", "messages": [{"role": "user", "content": "Hi"}]}
RAW = {"raw_prompt": "Hi", "max_tokens": 1}
BATCH: dict[str, Any] = {"input_batch": [], "normalization_method": "None"}

Test = Callable[[Running], Coroutine[Any, Any, None]]


@pytest.fixture
def protected(tmp_path: Path) -> Callable[..., None]:
    """Run a test on a balancer that asks for keys."""
    keys, tokens = tmp_path / "keys", tmp_path / "tokens"
    keys.write_text(f"search {KEY}\nsupport {OTHER_KEY}\n")
    tokens.write_text(f"ops {TOKEN}\n")

    def run(test: Test, *flags: str) -> None:
        files = ("--inference-api-key-file", str(keys), "--management-token-file", str(tokens))
        on_balancer(test, *files, *flags)

    return run


def bearer(key: str) -> str:
    return f"Authorization: Bearer {key}\r\n"


def basic(password: str, user: str = "me") -> str:
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    return f"Authorization: Basic {credentials}\r\n"


def test_every_route_asks_for_its_key(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        for port, method, path, right, wrong in (
            (running.inference, "POST", "/api/v1/continue_from_raw_prompt", KEY, TOKEN),
            (running.inference, "POST", "/api/v1/generate_embedding_batch", KEY, TOKEN),
            (running.inference, "GET", "/api/v1/inference_socket", KEY, TOKEN),
            (running.inference, "GET", "/nowhere", KEY, TOKEN),
            (running.openai, "GET", "/v1/models", KEY, TOKEN),
            (running.openai, "POST", "/v1/chat/completions", OTHER_KEY, TOKEN),
            (running.management, "GET", "/api/v1/agents", TOKEN, KEY),
            (running.management, "GET", "/metrics", TOKEN, KEY),
            (running.management, "PUT", DESIRED_STATE, TOKEN, KEY),
            (running.management, "GET", "/api/v1/agent_socket/a", TOKEN, KEY),
            (running.panel, "GET", "/", TOKEN, KEY),
            (running.panel, "GET", "/static/panel.js", TOKEN, KEY),
            (running.panel, "GET", "/api/v1/agents", TOKEN, KEY),
        ):
            for fields in ("", bearer(wrong), bearer(right) + bearer(right), bearer("")):
                refused = await running.ask(port, method, path, fields=fields)
                assert refused.status == 401, (path, fields)
                assert "www-authenticate" in refused.headers
                assert wrong.encode() not in refused.body
            answer = await running.ask(port, method, path, fields=bearer(right))
            assert answer.status != 401, (path, answer.body)

    protected(test)


def test_health_is_open_to_all(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        for port in (running.inference, running.openai, running.management):
            assert (await running.get(port, "/health")).status == 200
        for port in (running.inference, running.openai):
            assert (await running.get(port, "/ready")).status == 503

    protected(test)


def test_a_refusal_on_the_openai_listener_is_in_its_shape(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        answer = await running.get(running.openai, "/v1/models")
        error = json.loads(answer.body)["error"]
        assert "Authorization: Bearer" in error["message"]
        assert error["type"] == "invalid_request_error"

    protected(test)


def test_browsers_ask_for_the_token_as_a_password(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        asked = await running.get(running.panel, "/")
        assert asked.headers.get("www-authenticate") == 'Basic realm="paddler"'
        assert (await running.get(running.panel, "/", basic(TOKEN))).status == 200
        for fields in (basic("wrong"), basic("", TOKEN), "Authorization: Basic !\r\n"):
            assert (await running.get(running.panel, "/", fields)).status == 401
        # Elsewhere nobody is asked for a password, and none is taken.
        assert (await running.get(running.management, "/metrics", basic(TOKEN))).status == 401

    protected(test)


def test_preflights_carry_no_key(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        fields = "Origin: http://app\r\nAccess-Control-Request-Method: POST\r\n"
        answer = await running.ask(running.inference, "OPTIONS", "/api/v1/x", fields=fields)
        assert answer.status == 200

    protected(test, "--inference-cors-allowed-host", "http://app")


def test_agents_show_the_token(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        with pytest.raises(ConnectFailed) as caught:
            await Agent.dial(running)
        assert caught.value.http_status == 401

    protected(test)


def test_who_changed_what_is_told_by_name(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        port, fields = running.management, bearer(TOKEN) + JSON_TYPE
        state = json.loads((await running.get(port, DESIRED_STATE, fields)).body)
        state["model"] = {"LocalToAgent": "/m.gguf"}
        body = json.dumps(state).encode()
        assert (await running.ask(port, "PUT", DESIRED_STATE, body, fields)).status == 204
        events = await running.get(port, "/api/v1/events", fields)
        (event,) = json.loads(events.body)["events"]
        assert event["detail"]["by"] == "ops (127.0.0.1)"
        assert TOKEN.encode() not in events.body

    protected(test)


def test_keys_are_read_again(protected: Callable[..., None], tmp_path: Path) -> None:
    async def test(running: Running) -> None:
        (tmp_path / "keys").write_text("search another-key-0123456\n")
        running.balancer.protection.reload()
        for key, status in ((KEY, 401), ("another-key-0123456", 200)):
            assert (await running.get(running.openai, "/v1/models", bearer(key))).status == status
        (tmp_path / "keys").write_text("")
        running.balancer.protection.reload()  # told in the log; what was there stays
        answer = await running.get(running.openai, "/v1/models", bearer("another-key-0123456"))
        assert answer.status == 200

    protected(test)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--inference-api-key-file", "/nowhere"], "--inference-api-key-file: /nowhere cannot"),
        (["--management-token-file", "/"], "--management-token-file: / cannot be read"),
        (
            ["--inference-tls-cert", "/nowhere", "--inference-tls-key", "/nowhere"],
            "--inference-tls-cert: /nowhere with the key /nowhere cannot be read",
        ),
    ],
)
def test_files_that_cannot_be_used_stop_the_start(flags: list[str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Protection(config_of(*flags))


# --- limits of a key ----------------------------------------------------------------------------


def test_one_key_cannot_have_everything(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        def ask(key: str) -> asyncio.Task[Any]:
            body = json.dumps(RAW).encode()
            path = "/api/v1/continue_from_raw_prompt"
            asking = running.ask(running.inference, "POST", path, body, bearer(key) + JSON_TYPE)
            return asyncio.create_task(asking)

        async def waiting(count: int) -> None:
            while running.balancer._waitline.waiting != count:
                await asyncio.sleep(0.01)

        greedy = [ask(KEY) for _ in range(2)]
        await waiting(2)
        third = await ask(KEY)  # half of the buffer of 4 is its share
        assert third.status == 200
        assert b'"code":429' in third.body
        modest = ask(OTHER_KEY)
        await waiting(3)
        for task in (*greedy, modest):
            task.cancel()

    protected(test, "--max-buffered-requests", "4")


def test_a_key_may_have_so_many_requests_under_way(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        fields = bearer(KEY) + JSON_TYPE
        body = json.dumps(CHAT).encode()
        asking = running.ask(running.openai, "POST", "/v1/chat/completions", body, fields)
        first = asyncio.create_task(asking)
        while running.balancer._waitline.waiting != 1:
            await asyncio.sleep(0.01)
        refused = await running.ask(running.openai, "POST", "/v1/chat/completions", body, fields)
        assert refused.status == 429
        assert "retry-after" in refused.headers
        assert json.loads(refused.body)["error"]["code"] == "rate_limit_exceeded"
        other = await running.ask(running.openai, "GET", "/v1/models", fields=bearer(OTHER_KEY))
        assert other.status == 200
        first.cancel()

    protected(test, "--max-requests-per-key", "1")


# --- pages of other sites -----------------------------------------------------------------------

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://a.evil.example"])
def test_other_sites_open_no_sockets_and_drain_nobody(origin: str) -> None:
    async def test(running: Running) -> None:
        fields = f"Origin: {origin}\r\n"
        for port, path in (
            (running.inference, "/api/v1/inference_socket"),
            (running.management, "/api/v1/agent_socket/evil"),
        ):
            answer = await running.get(port, path, UPGRADE + fields)
            assert answer.status == 403
        agent = await Agent.join(running)
        drain = "/api/v1/agent/id-1/drain"
        assert (await running.ask(running.management, "POST", drain, fields=fields)).status == 403
        assert (await running.ask(running.management, "POST", drain)).status == 204
        agent.leave()

    on_balancer(test)


def test_allowed_sites_open_sockets() -> None:
    async def test(running: Running) -> None:
        for origin in ("https://app.example.com", "http://a"):  # "a" is the Host of the request
            fields = f"{UPGRADE}Origin: {origin}\r\n"
            peer = await asyncio.open_connection("127.0.0.1", running.inference)
            async with Client(*peer) as client:
                path = "/api/v1/inference_socket"
                client.writer.write(request("GET", path, fields=fields))
                assert (await client.reader.readline()).startswith(b"HTTP/1.1 101 ")

    on_balancer(test, "--inference-cors-allowed-host", "https://app.example.com")


# --- pages whose own name was made to point here ------------------------------------------------


def rebound(port: int, origin: str = "", name: str = "evil.example") -> dict[str, str]:
    """Host and fields of a request by a page of ``name``, which resolves to this machine."""
    host = f"{name}:{port}"
    return {"host": host, "fields": f"{JSON_TYPE}Origin: {origin or f'http://{host}'}\r\n"}


@pytest.mark.parametrize("origin", ["", "null"])
def test_a_page_that_rebinds_its_name_changes_nothing(origin: str) -> None:
    async def test(running: Running) -> None:
        before = await running.get(running.management, DESIRED_STATE)
        state = json.loads(before.body) | {"model": {"LocalToAgent": "/evil.gguf"}}
        agent = await Agent.join(running)
        port = running.management
        for method, path, body in (
            ("PUT", DESIRED_STATE, state),
            ("GET", DESIRED_STATE, None),
            ("POST", "/api/v1/agent/id-1/drain", None),
        ):
            encoded = b"" if body is None else json.dumps(body).encode()
            answer = await running.ask(port, method, path, encoded, **rebound(port, origin))
            assert answer.status == 403, path
            assert b"evil.example" in answer.body, path
            assert b"--management-cors-allowed-host" in answer.body, path
        page = rebound(port, origin)
        fields = UPGRADE + page["fields"]
        path = "/api/v1/agent_socket/evil"
        answer = await running.ask(port, "GET", path, fields=fields, host=page["host"])
        assert answer.status == 403
        assert (await running.get(running.management, DESIRED_STATE)).body == before.body
        agent.leave()

    on_balancer(test)


def test_a_page_by_any_name_may_use_the_model() -> None:
    """Clients of WebSockets send ``Origin``, too, and so do pages behind a proxy."""

    async def test(running: Running) -> None:
        page = rebound(running.openai, name="chat.example.com")
        assert (await running.ask(running.openai, "GET", "/v1/models", **page)).status == 200
        page = rebound(running.inference, name="chat.example.com")
        stream = await asyncio.open_connection("127.0.0.1", running.inference)
        async with Client(*stream) as client:
            fields = UPGRADE + page["fields"]
            path = "/api/v1/inference_socket"
            client.writer.write(request("GET", path, fields=fields, host=page["host"]))
            assert (await client.reader.readline()).startswith(b"HTTP/1.1 101 ")

    on_balancer(test)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("balancer.example.com", None),  # curl, agents, Prometheus
        ("balancer.example.com", "http://other.example.com"),  # served, without CORS fields
        ("balancer.example.com", "https://balancer.example.com"),  # has a certificate
        ("ui.example.com", "http://ui.example.com"),  # allowed by flag
        ("UI.example.com:8060", "http://ui.example.com:8060"),  # its name is
        ("127.0.0.1:8060", "http://127.0.0.1:8060"),
        ("[::1]:8060", "http://[::1]:8060"),
        ("10.0.0.5", "http://10.0.0.5"),
        ("localhost:8060", "http://localhost:8060"),
        ("balancer:8060", "http://balancer:8060"),
        ("balancer.internal", "http://balancer.internal"),
        ("localhost:8060", "http://evil.example:8060"),
        ("localhost:8060", "null"),
    ],
)
def test_names_that_are_ours_and_programs_are_served(host: str, origin: str | None) -> None:
    async def test(running: Running) -> None:
        fields = f"Origin: {origin}\r\n" if origin else ""
        for port, path in (
            (running.management, "/metrics"),
            (running.inference, "/health"),
            (running.openai, "/v1/models"),
        ):
            answer = await running.ask(port, "GET", path, fields=fields, host=host)
            assert answer.status == 200, path
            is_allowed = origin == "http://ui.example.com"
            assert ("access-control-allow-origin" in answer.headers) is is_allowed
        port = running.management
        body = (await running.get(port, DESIRED_STATE)).body
        put = await running.ask(port, "PUT", DESIRED_STATE, body, fields + JSON_TYPE, host)
        assert put.status == 204

    flags = ("--management-cors-allowed-host", "--inference-cors-allowed-host")
    on_balancer(test, *(word for flag in flags for word in (flag, "http://ui.example.com")))


def test_a_page_by_the_machines_own_name_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7.fleet.example")

    async def test(running: Running) -> None:
        for name, status in (("node-7.fleet.example", 200), ("node-8.fleet.example", 403)):
            fields = f"Origin: http://{name}:8060\r\n"
            answer = await running.ask(
                running.management, "GET", "/metrics", fields=fields, host=f"{name}:8060"
            )
            assert answer.status == status, name

    on_balancer(test)


def test_a_page_that_asks_for_leave_is_answered_as_any_other() -> None:
    async def test(running: Running) -> None:
        page = rebound(running.management)
        page["fields"] += "Access-Control-Request-Method: PUT\r\n"
        answer = await running.ask(running.management, "OPTIONS", DESIRED_STATE, **page)
        assert answer.status == 400

    on_balancer(test)


def test_a_page_that_was_given_a_key_may_have_any_name(protected: Callable[..., None]) -> None:
    async def test(running: Running) -> None:
        page = rebound(running.management)
        assert (await running.ask(running.management, "GET", DESIRED_STATE, **page)).status == 401
        page["fields"] += bearer(TOKEN)
        assert (await running.ask(running.management, "GET", DESIRED_STATE, **page)).status == 200

    protected(test)
