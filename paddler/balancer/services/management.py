"""The management service: what operators call."""

import msgspec

from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.link import AgentLink, Pool
from paddler.balancer.services.body import read_json
from paddler.balancer.services.health import get_health
from paddler.balancer.waitline import Waitline
from paddler.messages.state import DesiredState
from paddler.net.connection import Exchange
from paddler.net.http import Response, Router, json

MAX_BODY_BYTES = 2 * 1024 * 1024

encode = msgspec.json.Encoder().encode
decode_desired_state = msgspec.json.Decoder(DesiredState).decode


class ManagementService:
    """Routes of the management listener, the agent socket aside."""

    def __init__(self, pool: Pool, waitline: Waitline[AgentLink], state: DesiredStateStore) -> None:
        self._pool = pool
        self._waitline = waitline
        self._state = state

    def add_routes(self, router: Router) -> None:
        """Register everything this service answers."""
        router.add("GET", "/health", get_health)
        router.add("GET", "/api/v1/agents", self.get_agents)
        router.add("GET", "/api/v1/buffered_requests", self.get_buffered_requests)
        router.add("GET", "/api/v1/balancer_desired_state", self.get_desired_state)
        router.add(
            "PUT",
            "/api/v1/balancer_desired_state",
            self.put_desired_state,
            max_body_bytes=MAX_BODY_BYTES,
        )
        router.add("GET", "/api/v1/balancer_applicable_state", self.get_applicable_state)

    async def get_agents(self, exchange: Exchange) -> Response:
        """``GET /api/v1/agents``."""
        return json(200, encode(self._pool.snapshot()))

    async def get_buffered_requests(self, exchange: Exchange) -> Response:
        """``GET /api/v1/buffered_requests``."""
        return json(200, encode({"buffered_requests_current": self._waitline.waiting}))

    async def get_desired_state(self, exchange: Exchange) -> Response:
        """``GET /api/v1/balancer_desired_state``."""
        return json(200, encode(self._state.desired))

    async def put_desired_state(self, exchange: Exchange) -> Response:
        """``PUT /api/v1/balancer_desired_state``: 204 once stored; agents follow on their own."""
        self._state.put(read_json(exchange.request, decode_desired_state))
        return Response(204)

    async def get_applicable_state(self, exchange: Exchange) -> Response:
        """``GET /api/v1/balancer_applicable_state``."""
        return json(200, encode(self._state.applicable))
