"""The management service: the routes that clients of this API know."""

from typing import Final

import msgspec

from paddler.balancer.chronicle import Chronicle
from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.link import AgentLink, AskFailed, Pool
from paddler.balancer.services.body import read_json
from paddler.balancer.services.health import get_health
from paddler.balancer.services.live import LiveStreams, SnapshotFeed
from paddler.balancer.waitline import Waitline
from paddler.messages import link as wire
from paddler.messages.state import DesiredState
from paddler.net.connection import Exchange
from paddler.net.http import Response, Router, json

MAX_BODY_BYTES: Final = 2 * 1024 * 1024
ASK_TIMEOUT_S: Final = 3.0

encode = msgspec.json.Encoder().encode
decode_desired_state = msgspec.json.Decoder(DesiredState).decode


class ManagementService:
    """Reads and changes the desired state, shows the fleet, and streams what changes."""

    def __init__(
        self,
        pool: Pool,
        waitline: Waitline[AgentLink],
        state: DesiredStateStore,
        streams: LiveStreams,
        chronicle: Chronicle,
    ) -> None:
        self._pool = pool
        self._waitline = waitline
        self._state = state
        self._streams = streams
        self._chronicle = chronicle
        self._agents_feed = SnapshotFeed(pool, pool.snapshot)
        self._buffer_feed = SnapshotFeed(waitline, self._buffer_snapshot)

    def add_routes(self, router: Router) -> None:
        """Register everything this service answers."""
        router.add("GET", "/health", get_health)
        self.add_api_routes(router)

    def add_api_routes(self, router: Router) -> None:
        """Register what lies under ``/api/``."""
        router.add("GET", "/api/v1/agents", self.get_agents)
        router.add("GET", "/api/v1/agents/stream", self.stream_agents)
        router.add("GET", "/api/v1/buffered_requests", self.get_buffered_requests)
        router.add("GET", "/api/v1/buffered_requests/stream", self.stream_buffered_requests)
        router.add("GET", "/api/v1/balancer_desired_state", self.get_desired_state)
        router.add(
            "PUT",
            "/api/v1/balancer_desired_state",
            self.put_desired_state,
            max_body_bytes=MAX_BODY_BYTES,
        )
        router.add("GET", "/api/v1/balancer_applicable_state", self.get_applicable_state)
        router.add("GET", "/api/v1/agent/{agent_id}/model_metadata", self.get_model_metadata)
        router.add(
            "GET", "/api/v1/agent/{agent_id}/chat_template_override", self.get_template_override
        )

    async def get_agents(self, exchange: Exchange) -> Response:
        """``GET /api/v1/agents``."""
        return json(200, encode(self._pool.snapshot()))

    async def stream_agents(self, exchange: Exchange) -> None:
        """``GET /api/v1/agents/stream``: the snapshot now and after each change."""
        await self._streams.serve(exchange, self._agents_feed)

    async def get_buffered_requests(self, exchange: Exchange) -> Response:
        """``GET /api/v1/buffered_requests``."""
        return json(200, encode(self._buffer_snapshot()))

    async def stream_buffered_requests(self, exchange: Exchange) -> None:
        """``GET /api/v1/buffered_requests/stream``: the count now and after each change."""
        await self._streams.serve(exchange, self._buffer_feed)

    async def get_desired_state(self, exchange: Exchange) -> Response:
        """``GET /api/v1/balancer_desired_state``."""
        return json(200, encode(self._state.desired))

    async def put_desired_state(self, exchange: Exchange) -> Response:
        """``PUT /api/v1/balancer_desired_state``: 204 once stored; agents follow on their own."""
        desired = read_json(exchange.request, decode_desired_state)
        before = self._state.desired
        self._state.put(desired)
        if desired != before:
            self._chronicle.on_state(desired, exchange.sender)
        return Response(204)

    async def get_applicable_state(self, exchange: Exchange) -> Response:
        """``GET /api/v1/balancer_applicable_state``."""
        return json(200, encode(self._state.applicable))

    async def get_model_metadata(self, exchange: Exchange) -> Response:
        """``GET /api/v1/agent/{agent_id}/model_metadata``: of the file opened last, or null."""
        return await self._ask(exchange, wire.AskMetadata())

    async def get_template_override(self, exchange: Exchange) -> Response:
        """``GET /api/v1/agent/{agent_id}/chat_template_override``: what replaces the model's."""
        return await self._ask(exchange, wire.AskTemplateOverride())

    async def _ask(self, exchange: Exchange, ask: wire.Ask) -> Response:
        agent = self._pool.find(exchange.request.params["agent_id"])
        if agent is None:
            return Response(404)
        try:
            return json(200, encode(await agent.link.ask(ask, ASK_TIMEOUT_S)))
        except AskFailed as error:
            return Response(error.status)

    def _buffer_snapshot(self) -> dict[str, int]:
        return {"buffered_requests_current": self._waitline.waiting}
