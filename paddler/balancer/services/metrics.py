"""``GET /metrics``: the state of the fleet for Prometheus."""

import asyncio
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from paddler.balancer.link import AgentLink, Pool
from paddler.balancer.measures import Measures
from paddler.balancer.waitline import Waitline
from paddler.net.connection import Exchange
from paddler.net.http import Response

if TYPE_CHECKING:
    from paddler.balancer.services.exposition import Exposition

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8; escaping=values"


class MetricsService:
    """The metrics route. ``prefix`` opens every name, as it is, where names may be so."""

    def __init__(
        self,
        prefix: str,
        pool: Pool,
        waitline: Waitline[AgentLink],
        measures: Measures,
        connections: Callable[[], dict[str, int]],
    ) -> None:
        self._sources = (prefix, pool, waitline, measures, connections)
        self._exposition: Exposition | None = None

    async def get_metrics(self, exchange: Exchange) -> Response:
        """``GET /metrics``."""
        exposition = self._exposition
        if exposition is None:
            # In a thread: streams go on while the library loads.
            module = await asyncio.to_thread(
                importlib.import_module, "paddler.balancer.services.exposition"
            )
            exposition = self._exposition = module.Exposition(*self._sources)
        return Response(200, exposition.text(), content_type=CONTENT_TYPE)
