"""Composition root of the balancer: builds the parts, wires them, runs them until it is stopped."""

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator
from functools import cached_property
from typing import TYPE_CHECKING, Final

import uvloop

from paddler import __version__
from paddler.balancer import pool
from paddler.balancer.affinity import PrefixIndex
from paddler.balancer.chronicle import Chronicle
from paddler.balancer.desired_state import DesiredStateStore, open_database
from paddler.balancer.history import History
from paddler.balancer.journal import Journal
from paddler.balancer.link import Pool
from paddler.balancer.measures import Measures
from paddler.balancer.protection import Protection
from paddler.balancer.relay import Dispatcher
from paddler.balancer.services.access import PageGuard, RebindingGuard
from paddler.balancer.services.agents import AgentsService
from paddler.balancer.services.embeddings import EmbeddingService
from paddler.balancer.services.health import Readiness
from paddler.balancer.services.inference import InferenceService
from paddler.balancer.services.inference_socket import InferenceSocketService
from paddler.balancer.services.live import LiveStreams
from paddler.balancer.services.management import ManagementService
from paddler.balancer.services.metrics import MetricsService
from paddler.balancer.services.operations import OperationsService
from paddler.balancer.statsd import report_gauges
from paddler.balancer.tenants import Tenants
from paddler.balancer.waitline import Waitline
from paddler.collection import collect_seldom
from paddler.config import Address, BalancerConfig, join_address, split_address
from paddler.descriptors import Descriptors, raise_limit
from paddler.errors import StartError
from paddler.net.cors import Cors
from paddler.net.http import HttpLimits, Router, Site
from paddler.net.server import Listener, listen
from paddler.signals import StopSignals

# What serves the optional listeners is read where they are asked for: a balancer listens as soon
# as its modules are read.
if TYPE_CHECKING:
    from paddler.balancer.services.openai.service import OpenAIService

log = logging.getLogger(__name__)

# A step of an agent may end hundreds of documents at once, tens of KiB each; token streams
# have a smaller bound of their own.
MAX_UNSENT_EMBEDDING_BYTES: Final = 64 * 1024 * 1024
CLOSE_TIMEOUT_S: Final = 0.5
MANAGEMENT_FLAG: Final = "--management-addr"
INFERENCE_FLAG: Final = "--inference-addr"
OPENAI_FLAG: Final = "--compat-openai-addr"
APPLICATION_FLAGS: Final = frozenset({INFERENCE_FLAG, OPENAI_FLAG})
PANEL_FLAG: Final = "--web-admin-panel-addr"


def run(config: BalancerConfig) -> int:
    """Run a balancer until SIGTERM, SIGINT or SIGHUP; the process's exit code."""
    raise_limit()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_until_stopped(config))
    return 0


async def serve_until_stopped(config: BalancerConfig) -> None:
    """Serve until the process is told to stop, then drain."""
    async with StopSignals() as signals, Balancer(config).running() as balancer:
        collect_seldom()
        if balancer.protection.is_reloadable:
            signals.on_hangup(balancer.protection.reload)
        await signals.wait()
        log.info("stopping: running answers have %d ms to finish", config.drain_timeout_ms)
        await signals.unless_again(balancer.drain())


class Balancer:
    """Everything in one balancer process. ``state`` and ``pool`` are for who embeds it."""

    def __init__(self, config: BalancerConfig) -> None:
        self._config = config
        self.protection = Protection(config)
        self.state = DesiredStateStore(open_database(config.state_database))
        self.journal = Journal()
        self._chronicle = Chronicle(self.journal)
        self.pool: Pool = pool.Pool(listener=self._chronicle)
        self._tenants = tenants = Tenants(
            requests_per_key=config.access.requests_per_key,
            waiting_per_key=self.protection.waiting_per_key,
        )
        self._waitline = Waitline(
            self.pool,
            limit=config.buffering.max_requests,
            timeout_s=config.buffering.timeout_ms / 1000,
            may_wait=tenants.may_wait,
        )
        self._measures = Measures()
        self._history = History(self.pool, self._waitline)
        self._dispatcher = Dispatcher(
            self.pool,
            self._waitline,
            item_timeout_s=config.buffering.item_timeout_ms / 1000,
            listeners=(
                self._measures.on_record,
                self._history.on_record,
                self._chronicle.on_record,
            ),
            prefixes=PrefixIndex() if config.prefix_affinity else None,
        )
        self._agents = AgentsService(self.pool, self.state, self._chronicle)
        self._streams = LiveStreams()
        self._management = ManagementService(
            self.pool, self._waitline, self.state, self._streams, self._chronicle
        )
        self._operations = OperationsService(
            self.pool, self.state, self.journal, self._history, self._chronicle, self._streams
        )
        self._inference = InferenceService(self._dispatcher, self.state, tenants)
        self._embeddings = EmbeddingService(self._dispatcher, self.pool, self.state, tenants)
        self._sockets = InferenceSocketService(
            self._dispatcher, self.state, tenants, max_message_bytes=config.max_body_bytes
        )
        self._descriptors = Descriptors()
        self._listeners: dict[str, Listener] = {}  # by flag

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Balancer"]:
        """Listening on every address within the block; :class:`StartError` if one is taken."""
        statsd = self._config.statsd
        try:
            await self._listen()
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._history.run(), name="history"),
                    tasks.create_task(self._chronicle.run(), name="chronicle"),
                    tasks.create_task(self._descriptors.run(), name="descriptors"),
                ]
                if statsd.address is not None:
                    reporting = report_gauges(
                        statsd.address,
                        statsd.prefix,
                        statsd.interval_ms / 1000,
                        self.pool,
                        self._waitline,
                    )
                    running.append(tasks.create_task(reporting, name="statsd"))
                yield self
                for task in running:
                    task.cancel()
        finally:
            await self._close()

    async def drain(self) -> None:
        """Stop accepting, let running answers finish within the drain timeout, end the others."""
        grace_s = self._config.drain_timeout_ms / 1000
        for listener in self._listeners.values():
            listener.close()
        self._streams.close()
        self._sockets.drain()
        clients = [one for flag, one in self._listeners.items() if flag != MANAGEMENT_FLAG]
        timer = asyncio.get_running_loop().call_later(grace_s, self._dispatcher.stop)
        try:
            # A second more: what the timer ends still has to reach its client.
            await asyncio.gather(*(listener.stop(grace_s + 1) for listener in clients))
        finally:
            timer.cancel()

    def add_management_routes(self, router: Router) -> None:
        """Register everything that the management listener answers."""
        self._management.add_routes(router)
        self._agents.add_routes(router)
        self._operations.add_routes(router)
        metrics = MetricsService(
            self._config.statsd.prefix,
            self.pool,
            self._waitline,
            self._measures,
            self.count_connections,
        )
        router.add("GET", "/metrics", metrics.get_metrics)

    async def _listen(self) -> None:
        config = self._config
        panel_origins = set()
        if config.panel is not None:
            scheme = "https" if PANEL_FLAG in config.tls else "http"
            panel_origins = {f"{scheme}://{join_address(config.panel.host, config.panel.port)}"}
        management = Router()
        self.add_management_routes(management)
        management_origins = config.management_origins | panel_origins
        management_cors = Cors(management_origins)
        tokens = self.protection.token_check
        rebinding = None  # with keys, a page that was not given one can do nothing
        if tokens is None:
            rebinding = RebindingGuard(management_origins, config.management.text)
            rebinding.learn_own_names()
        readiness = Readiness(self.pool)
        await self._open(
            MANAGEMENT_FLAG,
            config.management,
            Site(
                router=management,
                guard=PageGuard(management_cors, rebinding),
                cors=management_cors,
                authenticate=tokens,
            ),
        )
        inference_cors = Cors(config.inference_origins | panel_origins)
        api_keys = self.protection.api_key_check
        inference = Router()
        self._inference.add_routes(inference)
        self._sockets.add_routes(inference)
        inference.add("GET", "/ready", readiness.get_ready)
        self._embeddings.add_routes(inference)
        await self._open(
            INFERENCE_FLAG,
            config.inference,
            Site(
                router=inference,
                cors=inference_cors,
                authenticate=api_keys,
                max_body_bytes=config.max_body_bytes,
                limits=HttpLimits(max_unsent_bytes=MAX_UNSENT_EMBEDDING_BYTES),
            ),
        )
        if config.openai is not None:
            await self._open(OPENAI_FLAG, config.openai, self._openai_site(readiness))
        if config.panel is not None:
            await self._open(PANEL_FLAG, config.panel, self._panel_site(config.panel))
        log.info("paddler %s is ready", __version__)

    @cached_property
    def _openai(self) -> "OpenAIService":
        """For its own listener, and for the panel's."""
        from paddler.balancer.services.openai.service import OpenAIService

        return OpenAIService(self._dispatcher, self.pool, self.state, self._tenants)

    def _openai_site(self, readiness: Readiness) -> Site:
        from paddler.balancer.services.openai.errors import render_error

        router = Router()
        self._openai.add_routes(router)
        router.add("GET", "/ready", readiness.get_ready)
        return Site(
            router=router,
            render_error=render_error,
            cors=Cors(self._config.inference_origins),
            authenticate=self.protection.api_key_check,
            max_body_bytes=self._config.max_body_bytes,
        )

    def _panel_site(self, address: Address) -> Site:
        """The pages, and all that they call, by the handlers of the other listeners."""
        from paddler.balancer.services.panel import (
            SECURITY_HEADERS,
            PanelService,
            add_openai_routes,
        )
        from paddler.balancer.services.panel_guard import PanelGuard
        from paddler.balancer.services.panel_stream import PanelFeed, PanelStreamService

        config = self._config
        router = Router()
        self._management.add_api_routes(router)
        self._operations.add_routes(router)
        self._inference.add_api_routes(router)
        self._embeddings.add_routes(router)
        add_openai_routes(router, self._openai)
        feed = PanelFeed(self.pool, self._waitline, self.state, self.journal, self._history)
        PanelStreamService(feed, self._streams).add_routes(router)
        PanelService(config).add_routes(router)
        guard = PanelGuard({split_address(address.text)[0].lower(), *config.panel_hosts})
        guard.learn_own_names()
        return Site(
            router=router,
            guard=guard,
            authenticate=self.protection.panel_check,
            headers=SECURITY_HEADERS,
            max_body_bytes=config.max_body_bytes,
            limits=HttpLimits(max_unsent_bytes=MAX_UNSENT_EMBEDDING_BYTES),
        )

    async def _open(self, flag: str, address: Address, site: Site) -> Listener:
        # Agents and operators may use what is kept back from applications.
        descriptors = self._descriptors if flag in APPLICATION_FLAGS else None
        tls = self.protection.tls(flag)
        try:
            listener = await listen(site, address.host, address.port, tls, descriptors)
        except OSError as error:
            raise StartError(explain_bind_error(flag, address, error)) from error
        self._listeners[flag] = listener
        self.protection.warn(flag, address, has_keys=site.authenticate is not None)
        # Not the one that was asked for: that may have been 0, for any.
        log.info("%s: listening on %s", flag, join_address(listener.host, listener.port))
        return listener

    def count_connections(self) -> dict[str, int]:
        """Open connections by listener."""
        return {
            flag.removeprefix("--").removesuffix("-addr"): len(listener.connections)
            for flag, listener in self._listeners.items()
        }

    async def _close(self) -> None:
        self._dispatcher.stop()
        self._streams.close()
        try:
            # Close frames go out at once; who does not answer them is not waited for.
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.gather(*(listener.stop(0) for listener in self._listeners.values()))
        except TimeoutError:
            log.info("some clients did not answer the end of their connection")
        self.state.close()


def explain_bind_error(flag: str, address: Address, error: OSError) -> str:
    """One line that names the port and the flag to change."""
    if error.errno == errno.EADDRINUSE:
        reason = "is already in use"
    elif error.errno == errno.EACCES:
        reason = "needs more rights (ports below 1024 do)"
    elif error.errno == errno.EADDRNOTAVAIL:
        reason = "is not an address of this machine"
    else:
        reason = f"cannot be listened on: {error.strerror}"
    return (
        f"{flag}: port {address.port} on {address.host} {reason}; "
        f"choose another with {flag} HOST:PORT"
    )
