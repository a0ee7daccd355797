"""The inference service: what applications call natively."""

from typing import Final

from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.relay import Dispatcher
from paddler.balancer.services.body import read_json
from paddler.balancer.services.health import get_health
from paddler.balancer.services.ndjson import NdjsonOutlet
from paddler.errors import ClientError
from paddler.ids import new_id
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    decode_conversation,
    decode_raw_prompt,
)
from paddler.messages.link import ConversationJob, RawPromptJob
from paddler.net.connection import Exchange
from paddler.net.http import Router

TOKENS_DISABLED: Final = (
    "Token generation is disabled while the cluster is configured for embeddings"
)


class InferenceService:
    """Routes of the inference listener."""

    def __init__(self, dispatcher: Dispatcher, state: DesiredStateStore) -> None:
        self._dispatcher = dispatcher
        self._state = state

    def add_routes(self, router: Router) -> None:
        """Register everything this service answers."""
        router.add("GET", "/health", get_health)
        router.add("POST", "/api/v1/continue_from_raw_prompt", self.continue_from_raw_prompt)
        router.add(
            "POST",
            "/api/v1/continue_from_conversation_history",
            self.continue_from_conversation_history,
        )

    async def continue_from_raw_prompt(self, exchange: Exchange) -> None:
        """``POST /api/v1/continue_from_raw_prompt``."""
        request = read_json(exchange.request, decode_raw_prompt)
        self._require_tokens()
        await self._answer(exchange, RawPromptJob(request))

    async def continue_from_conversation_history(self, exchange: Exchange) -> None:
        """``POST /api/v1/continue_from_conversation_history``."""
        request = read_json(exchange.request, decode_conversation)
        self._require_tokens()
        require_known_properties(request)
        await self._answer(exchange, ConversationJob(request))

    def _require_tokens(self) -> None:
        if self._state.is_embedding:
            raise ClientError(TOKENS_DISABLED, status=501, code="token_generation_disabled")

    async def _answer(self, exchange: Exchange, job: RawPromptJob | ConversationJob) -> None:
        # The status goes out before a slot is found; every later problem is a line of the body.
        exchange.start(200, "application/json", (("cache-control", "no-cache"),))
        with NdjsonOutlet(exchange, new_id()) as outlet:
            outlet.end(await self._dispatcher.run(job, outlet))


def require_known_properties(request: ContinueFromConversationHistory) -> None:
    """Refuse a tool that requires a property which it does not declare."""
    for tool in request.tools:
        parameters = tool.function.parameters
        if parameters is None or not (parameters.required and parameters.properties is not None):
            continue
        for name in parameters.required:
            if name not in (parameters.properties or {}):
                raise ClientError(
                    f"Invalid request parameters: Required field '{name}' not found in properties",
                    code="tool_schema",
                )
