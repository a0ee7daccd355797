"""What operators see and do beyond the routes that other clients know."""

import asyncio
import platform
import re
from typing import Final

import msgspec

from paddler import __version__
from paddler.balancer.chronicle import Chronicle
from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.history import INTERVAL_S, History
from paddler.balancer.journal import Journal
from paddler.balancer.link import Agent, AskFailed, Pool
from paddler.balancer.services.body import read_json
from paddler.balancer.services.live import HistoryFeed, JournalFeed, LiveStreams
from paddler.errors import ClientError
from paddler.messages import link as wire
from paddler.messages.operations import (
    AgentReport,
    AgentReports,
    TemplateResult,
    TemplateTrial,
)
from paddler.messages.state import fingerprint
from paddler.net.connection import Exchange
from paddler.net.http import Response, Router, json

RENDER_TIMEOUT_S: Final = 10.0
MAX_TRIAL_BYTES: Final = 2 * 1024 * 1024
SAMPLE: Final = (
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Italy?"},
)

_LINE: Final = re.compile(r"line (\d+): ")

encode = msgspec.json.Encoder().encode
decode_trial = msgspec.json.Decoder(TemplateTrial).decode


class OperationsService:
    """Events, history, details and control of agents, trials of templates, the version."""

    def __init__(
        self,
        pool: Pool,
        state: DesiredStateStore,
        journal: Journal,
        history: History,
        chronicle: Chronicle,
        streams: LiveStreams,
    ) -> None:
        self._pool = pool
        self._state = state
        self._journal = journal
        self._history = history
        self._chronicle = chronicle
        self._streams = streams
        self._journal_feed = JournalFeed(journal)
        self._history_feed = HistoryFeed(history)
        self._trial = asyncio.Lock()

    def add_routes(self, router: Router) -> None:
        """Register everything this service answers."""
        router.add("GET", "/api/v1/version", self.get_version)
        router.add("GET", "/api/v1/events", self.get_events)
        router.add("GET", "/api/v1/events/stream", self.stream_events)
        router.add("GET", "/api/v1/history", self.get_history)
        router.add("GET", "/api/v1/history/stream", self.stream_history)
        router.add("GET", "/api/v1/agent_details", self.get_agent_details)
        router.add("POST", "/api/v1/agent/{agent_id}/drain", self.drain_agent)
        router.add("POST", "/api/v1/agent/{agent_id}/resume", self.resume_agent)
        router.add("POST", "/api/v1/agent/{agent_id}/disconnect", self.disconnect_agent)
        router.add(
            "POST",
            "/api/v1/chat_template/render",
            self.render_template,
            max_body_bytes=MAX_TRIAL_BYTES,
        )

    async def get_version(self, exchange: Exchange) -> Response:
        """``GET /api/v1/version``."""
        return json(200, encode({"version": __version__, "python": platform.python_version()}))

    # --- events and history --------------------------------------------------------------------

    async def get_events(self, exchange: Exchange) -> Response:
        """``GET /api/v1/events?after=ID``: the events behind it; all that are kept, without."""
        events = self._journal.after(_number(exchange.request.query_value("after"), "after"))
        return json(200, encode({"events": events, "last_id": self._journal.last_id}))

    async def stream_events(self, exchange: Exchange) -> None:
        """``GET /api/v1/events/stream``: what is kept, then each new one; resumes by its id."""
        request = exchange.request
        last_id = request.headers.get("last-event-id") or request.query_value("after")
        cursor = _number(last_id, "Last-Event-ID")
        await self._streams.serve(exchange, self._journal_feed, cursor=cursor)

    async def get_history(self, exchange: Exchange) -> Response:
        """``GET /api/v1/history``: the samples of the last quarter of an hour."""
        body = {"interval_s": INTERVAL_S, "samples": self._history.samples}
        return json(200, encode(body))

    async def stream_history(self, exchange: Exchange) -> None:
        """``GET /api/v1/history/stream``: each new sample."""
        await self._streams.serve(exchange, self._history_feed, cursor=self._history.taken)

    # --- agents --------------------------------------------------------------------------------

    async def get_agent_details(self, exchange: Exchange) -> Response:
        """``GET /api/v1/agent_details``: what is known of each agent beyond its snapshot."""
        reports = [self._report(agent) for agent in self._pool.agents]
        state = self._state.applicable
        model = msgspec.to_builtins(state.model)
        return json(200, encode(AgentReports(reports, model, fingerprint(state))))

    async def drain_agent(self, exchange: Exchange) -> Response:
        """``POST …/drain``: no new requests for this agent; those that run go on."""
        agent = self._agent_of(exchange)
        if not self._pool.is_drained(agent):
            self._pool.set_drained(agent, True)
            self._chronicle.on_control("agent_drained", agent, exchange.sender)
        return Response(204)

    async def resume_agent(self, exchange: Exchange) -> Response:
        """``POST …/resume``: undoes a drain."""
        agent = self._agent_of(exchange)
        if self._pool.is_drained(agent):
            self._pool.set_drained(agent, False)
            self._chronicle.on_control("agent_resumed", agent, exchange.sender)
        return Response(204)

    async def disconnect_agent(self, exchange: Exchange) -> Response:
        """``POST …/disconnect``: closes its connection; it dials again, its model loaded."""
        agent = self._agent_of(exchange)
        self._chronicle.on_control("agent_disconnected", agent, exchange.sender)
        agent.link.disconnect("disconnected by an operator")
        return Response(204)

    # --- templates -----------------------------------------------------------------------------

    async def render_template(self, exchange: Exchange) -> Response:
        """``POST /api/v1/chat_template/render``: on an agent, which has what templates need."""
        trial = read_json(exchange.request, decode_trial)
        agents = self._pool.agents
        if not agents:
            raise ClientError(
                "no agent is connected, and only agents can render templates",
                status=503,
                code="no_agents",
            )
        ask = wire.RenderTemplate(
            source=trial.template,
            messages=list(SAMPLE) if trial.messages is None else trial.messages,
            tools=trial.tools,
            add_generation_prompt=trial.add_generation_prompt,
            enable_thinking=trial.enable_thinking,
        )
        try:
            # One at a time: who waits here and leaves costs no agent anything.
            async with self._trial:
                text = await agents[0].link.ask(ask, RENDER_TIMEOUT_S)
        except AskFailed as error:
            if error.status != 400:
                raise ClientError(str(error), status=error.status, code=error.code) from error
            line = _LINE.match(str(error))
            return json(
                200,
                encode(
                    TemplateResult(text=None, error=str(error), line=int(line[1]) if line else None)
                ),
            )
        return json(200, encode(TemplateResult(text=str(text))))

    # --- inside --------------------------------------------------------------------------------

    def _agent_of(self, exchange: Exchange) -> Agent:
        agent_id = exchange.request.params["agent_id"]
        agent = self._pool.find(agent_id)
        if agent is None:
            raise ClientError(
                f"no agent with the id {agent_id!r} is connected", status=404, code="no_such_agent"
            )
        return agent

    def _report(self, agent: Agent) -> AgentReport:
        connected_s, last_seen_s = agent.link.ages()
        return AgentReport(
            id=agent.id,
            name=agent.name,
            version=agent.version,
            address=agent.address,
            is_drained=self._pool.is_drained(agent),
            slots_busy=self._pool.busy(agent),
            slots_total=agent.status.slots_total,
            connected_s=round(connected_s, 1),
            last_seen_s=round(last_seen_s, 1),
            details=agent.details,
        )


def _number(text: str | None, name: str) -> int:
    if text is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise ClientError(f"{name} is {text!r}; it must be the id of an event")
    return int(text)
