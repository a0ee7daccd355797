"""What every answer streamed on an HTTP exchange has in common."""

from typing import Final, Self

from paddler._fastpath import Sink
from paddler.net.connection import Exchange

MAX_UNSENT_BYTES: Final = 1024 * 1024


class ExchangeOutlet:
    """Writes to one exchange and follows its client's pace. Use as ``with``."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._sink: Sink | None = None

    def __enter__(self) -> Self:
        self._exchange.flow.on_change(self._on_flow)
        return self

    def __exit__(self, *_: object) -> None:
        self._exchange.flow.forget(self._on_flow)

    def on_overrun(self) -> None:
        """Cut the client off."""
        self._exchange.abort()

    def _make_sink(
        self, stream_id: int, prefixes: tuple[bytes | None, ...], suffix: bytes, now: float
    ) -> Sink:
        """A sink that writes straight to the client's transport."""
        self._sink = Sink(
            stream_id,
            self._exchange.write_raw,
            self._exchange.framing,
            prefixes,
            suffix,
            now,
            MAX_UNSENT_BYTES,
        )
        self._sink.is_paused = self._exchange.flow.is_paused
        return self._sink

    def _on_flow(self, is_paused: bool) -> None:
        if self._sink is not None:
            self._sink.is_paused = is_paused
