"""The web panel's files, and the page with the balancer's settings on it."""

import html.parser
import json
from pathlib import Path

import pytest

from paddler.balancer.app import Balancer
from paddler.balancer.services.panel import SECURITY_HEADERS, fill_in_page
from tests.balancer.services.running import (
    DESIRED_STATE,
    JSON_TYPE,
    Running,
    config_of,
    on_balancer,
)
from tests.clients import scripted
from tests.e2e.fleet import free_ports


class Attributes(html.parser.HTMLParser):
    """The attributes of each element that has an id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.of: dict[str, dict[str, str | None]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if "id" in attributes:
            self.of[str(attributes.pop("id"))] = attributes


def dashboard(*flags: str) -> dict[str, str | None]:
    page = fill_in_page("<div id=d data-configuration>", config_of(*flags))
    return Attributes(page).of["d"]


def test_the_page_carries_addresses_and_limits() -> None:
    assert dashboard() == {
        "data-management-addr": "127.0.0.1:8060",
        "data-inference-addr": "127.0.0.1:8061",
        "data-compat-openai-addr": "",
        "data-statsd-addr": "",
        "data-statsd-prefix": "paddler_",
        "data-statsd-reporting-interval-millis": "10000",
        "data-buffered-request-timeout-millis": "10000",
        "data-max-buffered-requests": "30",
        "data-tls-listeners": "",
        "data-asks-for-api-key": "no",
        "data-asks-for-management-token": "no",
    }


def test_the_page_carries_what_callers_of_the_services_need() -> None:
    shown = dashboard(
        *("--inference-api-key-file", "keys", "--management-token-file", "tokens"),
        *("--management-tls-cert", "a.pem", "--management-tls-key", "b.pem"),
        *("--inference-tls-cert", "a.pem", "--inference-tls-key", "b.pem"),
    )
    assert shown["data-tls-listeners"] == "--inference-addr --management-addr"
    assert shown["data-asks-for-api-key"] == "yes"
    assert shown["data-asks-for-management-token"] == "yes"


def test_optional_addresses_are_shown_as_they_were_typed() -> None:
    shown = dashboard("--compat-openai-addr", "localhost:8070", "--statsd-addr", "localhost:8125")
    assert shown["data-compat-openai-addr"] == "localhost:8070"
    assert shown["data-statsd-addr"] == "localhost:8125"


def test_what_operators_typed_cannot_leave_its_attribute() -> None:
    text = """"><script>alert('1')</script>&amp;"""
    assert dashboard("--statsd-prefix", text)["data-statsd-prefix"] == text


@pytest.mark.parametrize("path", ["/", "/dashboard", "/model", "/health", "/a/b/c"])
def test_every_page_is_the_one_page(path: str) -> None:
    async def test(running: Running) -> None:
        answer = await running.get(running.panel, path)
        assert answer.status == 200
        assert answer.headers.get("content-type") == "text/html; charset=utf-8"
        attributes = Attributes(answer.body.decode()).of["paddler-dashboard"]
        assert attributes["data-management-addr"] == f"127.0.0.1:{running.management}"

    on_balancer(test)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/panel.js", "text/javascript; charset=utf-8"),
        ("/static/panel.css", "text/css; charset=utf-8"),
        ("/favicon.ico", "image/svg+xml"),
    ],
)
def test_files_run_their_own_scripts_only(path: str, content_type: str) -> None:
    async def test(running: Running) -> None:
        answer = await running.get(running.panel, path)
        assert answer.status == 200
        assert answer.headers.get("content-type") == content_type
        policy = answer.headers.get("content-security-policy", "").split("; ")
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
        assert answer.headers.get("x-content-type-options") == "nosniff"

    on_balancer(test)


@pytest.mark.parametrize(
    "name",
    [
        *("none.js", "..%2Fcli.py", "%2Fetc%2Fpasswd", "panel.js%00", "panel"),
        *("", "a/panel.js", "../static/panel.js", "index.html"),
    ],
)
def test_there_are_no_files_but_the_panels(name: str) -> None:
    async def test(running: Running) -> None:
        answer = await running.get(running.panel, f"/static/{name}")
        assert (answer.status, answer.body) == (404, b"File not found")

    on_balancer(test)


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/static/panel.js", "/api/v1/agents"])
def test_behind_a_token_nothing_is_told_without_it(tmp_path: Path, path: str) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("operator token-of-operators\n")

    async def test(running: Running) -> None:
        answer = await running.get(running.panel, path)
        assert answer.status == 401
        assert answer.headers.get("www-authenticate") == 'Basic realm="paddler"'
        assert b"data-management-addr" not in answer.body
        assert answer.headers.get("content-security-policy")

    on_balancer(test, "--management-token-file", str(tokens))


def test_a_file_that_the_browser_has_is_not_sent_again() -> None:
    async def test(running: Running) -> None:
        for path in ("/", "/static/panel.js"):
            first = await running.get(running.panel, path)
            etag = first.headers.get("etag", "")
            assert first.headers.get("cache-control") == "no-cache"
            again = await running.get(running.panel, path, f"If-None-Match: {etag}\r\n")
            assert (again.status, again.body) == (304, b"")
            other = await running.get(running.panel, path, 'If-None-Match: "other"\r\n')
            assert (other.status, other.body) == (200, first.body)

    on_balancer(test)


@pytest.mark.parametrize("path", ["/", "/api/v1/agents", "/api/nowhere", "/static/none.js"])
def test_every_answer_says_what_browsers_may_do_with_it(path: str) -> None:
    async def test(running: Running) -> None:
        answer = await running.get(running.panel, path)
        for name, value in SECURITY_HEADERS:
            assert answer.headers.get_all(name) == [value]

    on_balancer(test)


def test_an_unknown_call_is_404_and_a_wrong_method_405() -> None:
    async def test(running: Running) -> None:
        assert (await running.get(running.panel, "/api/v1/nowhere")).status == 404
        wrong = await running.ask(running.panel, "DELETE", DESIRED_STATE)
        assert (wrong.status, wrong.headers.get("allow")) == (405, "GET, PUT")
        page = await running.ask(running.panel, "POST", "/model")
        assert (page.status, page.headers.get("allow")) == (405, "GET")

    on_balancer(test)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/agents",
        "/api/v1/buffered_requests",
        DESIRED_STATE,
        "/api/v1/balancer_applicable_state",
        "/api/v1/agent_details",
        "/api/v1/version",
    ],
)
def test_the_panel_answers_as_the_management_listener(path: str) -> None:
    async def test(running: Running) -> None:
        there = await running.get(running.management, path)
        here = await running.get(running.panel, path)
        assert (here.status, here.body) == (200, there.body)
        assert here.headers.get("content-type") == there.headers.get("content-type")

    on_balancer(test)


def test_the_agent_socket_and_the_metrics_are_not_the_panels() -> None:
    async def test(running: Running) -> None:
        for path in ("/api/v1/agent_socket/id-1", "/api/v1/inference_socket"):
            assert (await running.get(running.panel, path)).status == 404
        # As any path that is no call, it is the page.
        metrics = await running.get(running.panel, "/metrics")
        assert metrics.headers.get("content-type") == "text/html; charset=utf-8"

    on_balancer(test)


def test_a_chat_runs_through_the_panel() -> None:
    async def test(running: Running) -> None:
        turn = scripted.answer(*scripted.content("Par", "is"))
        async with scripted.playing(running, [turn]):
            body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
            answer = await running.post(running.panel, "/api/openai/v1/chat/completions", body)
        assert answer.status == 200
        assert json.loads(answer.body)["choices"][0]["message"]["content"] == "Paris"

    on_balancer(test)


def test_errors_of_the_openai_calls_have_openais_shape() -> None:
    async def test(running: Running) -> None:
        path = "/api/openai/v1/chat/completions"
        wrong = await running.ask(running.panel, "POST", path, b"{", JSON_TYPE)
        here = json.loads(wrong.body)
        there = await running.ask(running.openai, "POST", "/v1/chat/completions", b"{", JSON_TYPE)
        assert (wrong.status, here) == (there.status, json.loads(there.body))

    on_balancer(test)


def test_the_openai_calls_need_no_openai_listener() -> None:
    async def test(running: Running) -> None:
        panel = free_ports(1)[0]
        config = config_of(
            *("--management-addr", "127.0.0.1:0", "--inference-addr", "127.0.0.1:0"),
            *("--web-admin-panel-addr", f"127.0.0.1:{panel}"),
        )
        async with Balancer(config).running():
            assert (await running.get(panel, "/api/openai/v1/models")).status == 200

    on_balancer(test)


def test_a_body_past_the_limit_is_413_on_the_panel_too() -> None:
    async def test(running: Running) -> None:
        fields = JSON_TYPE + "Content-Length: 4097\r\n"
        for path in ("/api/v1/continue_from_raw_prompt", "/api/openai/v1/embeddings"):
            answer = await running.ask(running.panel, "POST", path, fields=fields)
            assert answer.status == 413

    on_balancer(test, "--max-body-bytes", "4096")
