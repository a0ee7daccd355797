"""What every answer that is streamed to a client has in common."""

from collections.abc import Callable
from typing import Final, Self

from paddler._fastpath import Sink
from paddler.net.flow import FlowControl

MAX_UNSENT_BYTES: Final = 1024 * 1024


class StreamingOutlet:
    """Writes to one client and follows its pace. Use as ``with``.

    ``write`` takes bytes that carry ``framing`` already; ``cut`` ends the connection of a
    client that reads too slowly.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        framing: int,
        flow: FlowControl,
        cut: Callable[[], object],
    ) -> None:
        self._write_framed = write
        self._framing = framing
        self._flow = flow
        self._cut = cut
        self._sink: Sink | None = None

    def __enter__(self) -> Self:
        self._flow.on_change(self._on_flow)
        return self

    def __exit__(self, *_: object) -> None:
        self._flow.forget(self._on_flow)
        # Both may refer back to this outlet, a cycle that only the seldom collection would find.
        self._sink = None
        del self._write_framed

    def on_overrun(self) -> None:
        """Cut the client off."""
        self._cut()

    def _make_sink(
        self, stream_id: int, prefixes: tuple[bytes | None, ...], suffix: bytes, now: float
    ) -> Sink:
        """A sink that writes straight to the client's connection."""
        self._sink = Sink(
            stream_id,
            self._write_framed,
            self._framing,
            prefixes,
            suffix,
            now,
            MAX_UNSENT_BYTES,
        )
        self._sink.is_paused = self._flow.is_paused
        return self._sink

    def _on_flow(self, is_paused: bool) -> None:
        if self._sink is not None:
            self._sink.is_paused = is_paused
