"""The inference service: what applications call natively."""

from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.relay import Dispatcher
from paddler.balancer.services.body import read_json
from paddler.balancer.services.health import get_health
from paddler.balancer.services.ndjson import NdjsonOutlet
from paddler.balancer.services.request_checks import TOKENS_DISABLED, require_known_properties
from paddler.balancer.tenants import Tenants
from paddler.errors import ClientError
from paddler.ids import new_id
from paddler.messages.inference import decode_conversation, decode_raw_prompt
from paddler.messages.link import ConversationJob, RawPromptJob
from paddler.net.connection import Exchange
from paddler.net.http import Router


class InferenceService:
    """Routes of the inference listener."""

    def __init__(self, dispatcher: Dispatcher, state: DesiredStateStore, tenants: Tenants) -> None:
        self._tenants = tenants
        self._dispatcher = dispatcher
        self._state = state

    def add_routes(self, router: Router) -> None:
        """Register everything this service answers."""
        router.add("GET", "/health", get_health)
        self.add_api_routes(router)

    def add_api_routes(self, router: Router) -> None:
        """Register what lies under ``/api/``."""
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
        await self._answer(exchange, RawPromptJob(request), "raw_prompt")

    async def continue_from_conversation_history(self, exchange: Exchange) -> None:
        """``POST /api/v1/continue_from_conversation_history``."""
        request = read_json(exchange.request, decode_conversation)
        self._require_tokens()
        require_known_properties(request)
        await self._answer(exchange, ConversationJob(request), "conversation")

    def _require_tokens(self) -> None:
        if self._state.is_embedding:
            raise ClientError(TOKENS_DISABLED, status=501, code="token_generation_disabled")

    async def _answer(
        self, exchange: Exchange, job: RawPromptJob | ConversationJob, route: str
    ) -> None:
        with self._tenants.request(exchange.request.principal):
            # The status goes out before a slot is found; every later problem is a line of the body.
            exchange.start(200, "application/json", (("cache-control", "no-cache"),))
            with NdjsonOutlet(exchange, new_id()) as outlet:
                outlet.end(await self._dispatcher.run(job, outlet, route=route))
