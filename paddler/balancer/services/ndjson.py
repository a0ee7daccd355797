"""Answers of the native inference service as newline-delimited JSON."""

from paddler._fastpath import Sink
from paddler.balancer.link import Agent
from paddler.balancer.relay import Outcome
from paddler.balancer.services.native_encoding import (
    TOKEN_SUFFIX,
    final_message,
    result_message,
    token_prefixes,
)
from paddler.balancer.services.outlet import StreamingOutlet
from paddler.messages.link import FrameKind
from paddler.net.connection import Exchange


class NdjsonOutlet(StreamingOutlet):
    """One answer as lines on an HTTP response that has been started."""

    def __init__(self, exchange: Exchange, request_id: str) -> None:
        super().__init__(exchange.write_raw, exchange.framing, exchange.flow, exchange.abort)
        self._exchange = exchange
        self._request_id = request_id

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        """Lines with this agent's name."""
        prefixes = token_prefixes(agent.name, self._request_id)
        return self._make_sink(stream_id, prefixes, TOKEN_SUFFIX + b"\n", now)

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        """Write one line."""
        self._exchange.write(result_message(payload, agent.name, self._request_id) + b"\n")

    def end(self, outcome: Outcome) -> None:
        """Write the last line."""
        self._exchange.write(final_message(outcome, self._request_id) + b"\n", more=True)
        self._exchange.finish()
