"""The state of the fleet in Prometheus' words.

Imported when the first scrape comes: its library takes longer to load than the whole balancer.
"""

import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from paddler.balancer.link import AgentLink, Pool
from paddler.balancer.measures import Distribution, Measures
from paddler.balancer.waitline import Waitline

_NO_NAME = re.compile(r"[^a-zA-Z0-9_:]")


class Exposition(Collector):
    """Collects everything. ``prefix`` opens every name, as it is, where names may be so."""

    def __init__(
        self,
        prefix: str,
        pool: Pool,
        waitline: Waitline[AgentLink],
        measures: Measures,
        connections: Callable[[], dict[str, int]],
    ) -> None:
        self._prefix = _NO_NAME.sub("_", prefix)  # one for StatsD may have dots
        self._pool = pool
        self._waitline = waitline
        self._measures = measures
        self._connections = connections
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """All of it, as it is now."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        yield self._gauge("slots_processing", "Number of processing slots", self._pool.slots_busy)
        yield self._gauge("slots_total", "Number of total slots", self._pool.slots_total)
        yield self._gauge(
            "requests_buffered", "Number of buffered requests", self._waitline.waiting
        )
        yield self._gauge("agents", "Number of connected agents", len(self._pool))
        yield from self._collect_requests()
        yield from self._collect_agents()
        connections = GaugeMetricFamily(
            f"{self._prefix}connections", "Open client connections", labels=["listener"]
        )
        for listener, count in self._connections().items():
            connections.add_metric([listener], count)
        yield connections
        yield self._gauge(
            "resident_memory_bytes", "Resident memory of the balancer", resident_bytes()
        )

    def _collect_requests(self) -> Iterator[Metric]:
        measures = self._measures
        requests = CounterMetricFamily(
            f"{self._prefix}requests",
            "Requests that ended, by route and outcome",
            labels=["route", "outcome"],
        )
        for labels, count in sorted(measures.requests.items()):
            requests.add_metric(list(labels), count)
        yield requests
        yield self._histogram(
            "wait_seconds", "Time that requests waited for a slot", measures.waited
        )
        yield self._histogram(
            "time_to_first_token_seconds",
            "Time from a request's arrival to the first piece of its answer",
            measures.first_token,
        )
        yield self._histogram(
            "time_between_tokens_seconds",
            "Time between two tokens of an answer, its average",
            measures.token_gap,
        )
        for name, text, count in (
            ("prompt_tokens", "Tokens of prompts", measures.prompt_tokens),
            (
                "cached_prompt_tokens",
                "Tokens of prompts not computed again",
                measures.cached_tokens,
            ),
            ("generated_tokens", "Tokens that were generated", measures.generated_tokens),
            ("failovers", "Requests moved to another agent", measures.failovers),
        ):
            yield CounterMetricFamily(f"{self._prefix}{name}", text, value=count)

    def _collect_agents(self) -> Iterator[Metric]:
        details = [agent.details for agent in self._pool.agents if agent.details is not None]
        for name, text, count in (
            (
                "worker_restarts",
                "Workers that died and were started again, of the connected agents",
                sum(one.worker_restarts for one in details),
            ),
            (
                "link_reconnects",
                "Times that the connected agents dialled again",
                sum(one.reconnects for one in details),
            ),
        ):
            yield self._gauge(name, text, count)

    def _gauge(self, name: str, text: str, value: float) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{self._prefix}{name}", text, value=value)

    def _histogram(self, name: str, text: str, distribution: Distribution) -> HistogramMetricFamily:
        return HistogramMetricFamily(
            f"{self._prefix}{name}",
            text,
            buckets=distribution.buckets,
            sum_value=distribution.total,
        )


def resident_bytes() -> int:
    """Memory that this process holds in RAM."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the largest it has been
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()
