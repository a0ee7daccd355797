"""The web admin panel: its pages, and under ``/api/`` what they call, all from one origin."""

import hashlib
import html
from importlib.resources import files
from typing import Final

import msgspec

from paddler.balancer.services.openai.errors import render_error
from paddler.balancer.services.openai.service import OpenAIService
from paddler.config import BalancerConfig
from paddler.errors import PaddlerError
from paddler.net.connection import Exchange
from paddler.net.http import Handler, Response, Router, text

CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# The page runs its own files only, talks to its own origin only, and nobody may frame it.
SECURITY_HEADERS: Final = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "permissions-policy",
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
)
"""What every response of the panel's listener carries."""

OPENAI_PREFIX: Final = "/api/openai"
STATIC_PREFIX: Final = "/static/"
NO_FILE: Final = text(404, "File not found")


class StaticFile(msgspec.Struct, frozen=True):
    """A file of the page. ``etag`` changes with its content."""

    content: bytes
    content_type: str
    etag: str


class PanelService:
    """The pages. Files are read once, at start."""

    def __init__(self, config: BalancerConfig) -> None:
        self._files = {
            entry.name: static_file(entry.name, entry.read_bytes())
            for entry in files("paddler").joinpath("static").iterdir()
            if suffix_of(entry.name) in CONTENT_TYPES
        }
        page = fill_in_page(self._files["index.html"].content.decode(), config)
        self._page = static_file("index.html", page.encode())
        del self._files["index.html"]  # unfilled, it is no page

    def add_routes(self, router: Router) -> None:
        """Register the pages: the page itself shows what a path asks for."""
        router.add("GET", "/favicon.ico", self.get_icon)
        router.add("GET", STATIC_PREFIX + "{name}", self.get_file)
        router.add_rest("GET", self.get_page, except_under="/api/")

    async def get_page(self, exchange: Exchange) -> Response:
        """The one page; not in place of a file that is nowhere."""
        if exchange.request.path.startswith(STATIC_PREFIX):
            return NO_FILE
        return serve(self._page, exchange)

    async def get_icon(self, exchange: Exchange) -> Response:
        """The icon that browsers ask for."""
        return serve(self._files["favicon.svg"], exchange)

    async def get_file(self, exchange: Exchange) -> Response:
        """A style sheet, module or image."""
        file = self._files.get(exchange.request.params["name"])
        return NO_FILE if file is None else serve(file, exchange)


def serve(file: StaticFile, exchange: Exchange) -> Response:
    """A file, or word that the browser has it already."""
    headers = (("etag", file.etag), ("cache-control", "no-cache"))
    if file.etag in exchange.request.headers.get("if-none-match", ""):
        return Response(304, headers=headers)
    return Response(200, file.content, content_type=file.content_type, headers=headers)


def static_file(name: str, content: bytes) -> StaticFile:
    """A file with what is told of it."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    return StaticFile(content, CONTENT_TYPES[suffix_of(name)], f'"{digest}"')


def add_openai_routes(router: Router, service: OpenAIService) -> None:
    """Register what the prompt page asks of the OpenAI-compatible service."""
    for method, path, handler in (
        ("POST", "/v1/chat/completions", service.create_chat_completion),
        ("POST", "/v1/embeddings", service.create_embeddings),
        ("GET", "/v1/models", service.list_models),
    ):
        router.add(method, OPENAI_PREFIX + path, with_openai_errors(handler))


def with_openai_errors(handler: Handler) -> Handler:
    """``handler`` with its errors in OpenAI's shape, as on that service's own listener."""

    async def answer(exchange: Exchange) -> Response | None:
        try:
            return await handler(exchange)
        except PaddlerError as error:
            if exchange.is_started:
                raise
            return render_error(error.status, error.code, str(error), ())

    return answer


def _yes_or_no(is_so: bool) -> str:
    return "yes" if is_so else "no"


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
        "tls-listeners": " ".join(sorted(config.tls)),
        "asks-for-api-key": _yes_or_no(config.access.api_key_file is not None),
        "asks-for-management-token": _yes_or_no(config.access.management_token_file is not None),
    }
    rendered = " ".join(f'data-{key}="{html.escape(value)}"' for key, value in attributes.items())
    return page.replace("data-configuration", rendered)
