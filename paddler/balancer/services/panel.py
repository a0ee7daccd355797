"""The web admin panel: its pages, and under ``/api/`` what they call, all from one origin."""

import html
from importlib.resources import files
from typing import Final

from paddler.balancer.services.management import ManagementService
from paddler.config import BalancerConfig
from paddler.net.connection import Exchange
from paddler.net.http import Response, Router, text

CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# The page runs its own files only, and nobody may frame it.
SECURITY_HEADERS: Final = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)


class PanelService:
    """Routes of the panel's listener. Files are read once, at start."""

    def __init__(self, config: BalancerConfig, management: ManagementService) -> None:
        self._management = management
        self._files = {
            entry.name: entry.read_bytes()
            for entry in files("paddler").joinpath("static").iterdir()
            if suffix_of(entry.name) in CONTENT_TYPES
        }
        self._page = fill_in_page(self._files["index.html"].decode(), config).encode()

    def add_routes(self, router: Router) -> None:
        """Register the pages and the calls they make."""
        router.add("GET", "/favicon.ico", self.get_icon)
        router.add("GET", "/static/{name}", self.get_file)
        router.add("GET", "/api/v1/agents", self._management.get_agents)
        router.add("GET", "/api/v1/buffered_requests", self._management.get_buffered_requests)
        for path in ("/", "/{page}"):
            router.add("GET", path, self.get_page)

    async def get_page(self, exchange: Exchange) -> Response:
        """The one page, which shows what the path asks for."""
        return Response(
            200, self._page, content_type=CONTENT_TYPES[".html"], headers=SECURITY_HEADERS
        )

    async def get_icon(self, exchange: Exchange) -> Response:
        """The icon that browsers ask for."""
        return self._serve("favicon.svg")

    async def get_file(self, exchange: Exchange) -> Response:
        """A style sheet, module or image."""
        return self._serve(exchange.request.params["name"])

    def _serve(self, name: str) -> Response:
        content = self._files.get(name)
        if content is None:
            return text(404, "File not found")
        return Response(
            200, content, content_type=CONTENT_TYPES[suffix_of(name)], headers=SECURITY_HEADERS
        )


def suffix_of(name: str) -> str:
    """The part of a file name from its last dot on."""
    return name[name.rfind(".") :]


def fill_in_page(page: str, config: BalancerConfig) -> str:
    """``page`` with the balancer's addresses and limits as the attributes that the page reads."""
    attributes = {
        "management-addr": config.management.text,
        "inference-addr": config.inference.text,
        "compat-openai-addr": config.openai.text if config.openai else "",
        "statsd-addr": config.statsd.address.text if config.statsd.address else "",
        "statsd-prefix": config.statsd.prefix,
        "statsd-reporting-interval-millis": str(config.statsd.interval_ms),
        "buffered-request-timeout-millis": str(config.buffering.timeout_ms),
        "max-buffered-requests": str(config.buffering.max_requests),
    }
    rendered = " ".join(f'data-{key}="{html.escape(value)}"' for key, value in attributes.items())
    return page.replace("data-configuration", rendered)
