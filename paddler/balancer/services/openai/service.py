"""Routes of the OpenAI listener."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.link import Pool
from paddler.balancer.relay import Dispatcher
from paddler.balancer.services.health import get_health
from paddler.balancer.services.openai import chat, completions, embeddings, responses
from paddler.balancer.services.openai.errors import ParameterError, Problem
from paddler.balancer.services.openai.models import ModelCatalogue
from paddler.balancer.services.openai.requests import read
from paddler.balancer.tenants import Tenants
from paddler.errors import ClientError
from paddler.net.connection import Exchange
from paddler.net.http import Response, Router

T = TypeVar("T")

CHAT_DISABLED: Final = (
    "Chat completions are disabled while the cluster is configured for embeddings"
)
RESPONSES_DISABLED: Final = "Responses are disabled while the cluster is configured for embeddings"
COMPLETIONS_DISABLED: Final = (
    "Completions are disabled while the cluster is configured for embeddings"
)
# What fetches, ends or forgets an answer that was stored.
STORED_RESPONSE_ROUTES: Final = (
    ("GET", "/v1/responses/{id}"),
    ("DELETE", "/v1/responses/{id}"),
    ("POST", "/v1/responses/{id}/cancel"),
    ("GET", "/v1/responses/{id}/input_items"),
)


class OpenAIService:
    """What applications call that were written for OpenAI."""

    def __init__(
        self, dispatcher: Dispatcher, pool: Pool, state: DesiredStateStore, tenants: Tenants
    ) -> None:
        self._tenants = tenants
        self._dispatcher = dispatcher
        self._pool = pool
        self._state = state
        self._models = ModelCatalogue(state)

    def add_routes(self, router: Router) -> None:
        """Register everything this service answers."""
        router.add("GET", "/health", get_health)
        router.add("POST", "/v1/chat/completions", self.create_chat_completion)
        router.add("POST", "/v1/completions", self.create_completion)
        router.add("POST", "/v1/embeddings", self.create_embeddings)
        router.add("POST", "/v1/responses", self.create_response)
        for method, path in STORED_RESPONSE_ROUTES:
            router.add(method, path, self.find_response)
        router.add("GET", "/v1/models", self.list_models)
        router.add("GET", "/v1/models/{id}", self.get_model)

    async def create_chat_completion(self, exchange: Exchange) -> Response | None:
        """``POST /v1/chat/completions``."""
        return await self._generate(
            exchange, chat.decode_request, chat.create_chat_completion, CHAT_DISABLED
        )

    async def create_completion(self, exchange: Exchange) -> Response | None:
        """``POST /v1/completions``."""
        return await self._generate(
            exchange,
            completions.decode_request,
            completions.create_completion,
            COMPLETIONS_DISABLED,
        )

    async def create_response(self, exchange: Exchange) -> Response | None:
        """``POST /v1/responses``."""
        return await self._generate(
            exchange, responses.decode_request, responses.create_response, RESPONSES_DISABLED
        )

    async def find_response(self, exchange: Exchange) -> Response:
        """``GET /v1/responses/{id}`` and its like: there is none."""
        name = exchange.request.params["id"]
        return Problem(
            404, f"Response {name!r} does not exist: nothing is stored here", param="id"
        ).response()

    async def create_embeddings(self, exchange: Exchange) -> Response | None:
        """``POST /v1/embeddings``."""
        try:
            request = read(exchange.request, embeddings.decode_request)
            with self._tenants.request(exchange.request.principal):
                return await embeddings.create_embeddings(
                    self._dispatcher, self._pool, self._state, request
                )
        except ParameterError as error:
            return _refuse(error)

    async def list_models(self, exchange: Exchange) -> Response:
        """``GET /v1/models``."""
        return self._models.list_models()

    async def get_model(self, exchange: Exchange) -> Response:
        """``GET /v1/models/{id}``."""
        return self._models.get_model(exchange.request.params["id"])

    async def _generate(
        self,
        exchange: Exchange,
        decode: Callable[[bytes], T],
        create: Callable[[Dispatcher, Exchange, T], Awaitable[Response | None]],
        disabled: str,
    ) -> Response | None:
        try:
            request: Any = read(exchange.request, decode)
            if self._state.is_embedding:
                raise ClientError(disabled, status=501, code="embeddings_mode")
            with self._tenants.request(exchange.request.principal):
                return await create(self._dispatcher, exchange, request)
        except ParameterError as error:
            return _refuse(error)
        except RecursionError as error:
            # What could just be decoded is to be encoded from a few calls deeper.
            raise ClientError("the request is nested too deeply", code="json") from error


def _refuse(error: ParameterError) -> Response:
    """400, with the field at fault where clients look for it."""
    return Problem(error.status, str(error), param=error.param).response()
