"""Frames that wait for the next packet to the agent process."""

from paddler.messages.link import FRAME_FINAL, FrameKind, encode_data_frame


class Outbox:
    """Gathers the frames of one step, and the ids of the streams that end in it."""

    __slots__ = ("_finished", "_frames")

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._finished: list[int] = []

    def add(self, stream_id: int, kind: FrameKind, payload: bytes) -> None:
        """A frame after which more will follow."""
        self._frames.append(encode_data_frame(stream_id, kind, payload))

    def finish(self, stream_id: int, kind: FrameKind, payload: bytes, flags: int = 0) -> None:
        """The last frame of its stream; ``flags`` beside that it is."""
        self._frames.append(encode_data_frame(stream_id, kind, payload, FRAME_FINAL | flags))
        self._finished.append(stream_id)

    def take(self) -> tuple[bytes, tuple[int, ...]] | None:
        """All frames since the last call and the streams they finish; ``None``: nothing."""
        if not self._frames:
            return None
        taken = b"".join(self._frames), tuple(self._finished)
        self.clear()
        return taken

    def clear(self) -> None:
        """Forget what was not taken."""
        self._frames.clear()
        self._finished.clear()
