"""The web panel's files, and the page with the balancer's settings on it."""

import html.parser
import json

import pytest

from paddler.balancer.services.panel import fill_in_page
from tests.balancer.services.running import Running, config_of, on_balancer


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
    }


def test_optional_addresses_are_shown_as_they_were_typed() -> None:
    shown = dashboard("--compat-openai-addr", "localhost:8070", "--statsd-addr", "localhost:8125")
    assert shown["data-compat-openai-addr"] == "localhost:8070"
    assert shown["data-statsd-addr"] == "localhost:8125"


def test_what_operators_typed_cannot_leave_its_attribute() -> None:
    text = """"><script>alert('1')</script>&amp;"""
    assert dashboard("--statsd-prefix", text)["data-statsd-prefix"] == text


@pytest.mark.parametrize("path", ["/", "/dashboard", "/model"])
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
    "name", ["none.js", "..%2Fcli.py", "%2Fetc%2Fpasswd", "panel.js%00", "panel"]
)
def test_there_are_no_files_but_the_panels(name: str) -> None:
    async def test(running: Running) -> None:
        answer = await running.get(running.panel, f"/static/{name}")
        assert (answer.status, answer.body) == (404, b"File not found")

    on_balancer(test)


def test_the_panel_answers_what_its_page_asks() -> None:
    async def test(running: Running) -> None:
        agents = await running.get(running.panel, "/api/v1/agents")
        assert json.loads(agents.body) == {"agents": []}
        waiting = await running.get(running.panel, "/api/v1/buffered_requests")
        assert json.loads(waiting.body) == {"buffered_requests_current": 0}

    on_balancer(test)
