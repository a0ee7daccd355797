"""Whether a listener runs, and whether the fleet behind it can serve."""

from paddler.balancer.link import Pool
from paddler.net.connection import Exchange
from paddler.net.http import Response, text


async def get_health(exchange: Exchange) -> Response:
    """``GET /health``: exactly ``OK``, on every listener; clients compare it."""
    return text(200, "OK")


class Readiness:
    """For orchestrators that hold traffic back until it can be served."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get_ready(self, exchange: Exchange) -> Response:
        """``GET /ready``: 200 while any agent has slots, 503 otherwise."""
        if self._pool.slots_total > 0:
            return text(200, "ready")
        return text(503, "no slot is ready: no agent is connected, or none has its model loaded")
