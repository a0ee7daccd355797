"""Frames that wait for the next packet to the agent process."""

from typing import Final

from paddler.messages.link import FIRST_STRUCTURED_KIND, FRAME_FINAL, FrameKind, encode_data_frame


class _Packet:
    """Frames in the making of one packet."""

    __slots__ = ("finished", "frames", "told")

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.finished: list[int] = []
        self.told: set[int] = set()  # streams with a structured frame in it


class Outbox:
    """Gathers the frames of one step, and the ids of the streams that end in it.

    That is one packet, mostly. The balancer writes the token frames of a packet to their
    clients as it walks over them, and looks at the structured ones after that: so a token
    behind a structured frame of its stream opens a new packet.
    """

    __slots__ = ("_packets",)

    def __init__(self) -> None:
        self._packets: Final[list[_Packet]] = []

    def add(self, stream_id: int, kind: FrameKind, payload: bytes) -> None:
        """A frame after which more will follow."""
        self._put(stream_id, kind, encode_data_frame(stream_id, kind, payload))

    def finish(self, stream_id: int, kind: FrameKind, payload: bytes, flags: int = 0) -> None:
        """The last frame of its stream; ``flags`` beside that it is."""
        frame = encode_data_frame(stream_id, kind, payload, FRAME_FINAL | flags)
        self._put(stream_id, kind, frame).finished.append(stream_id)

    def take(self) -> tuple[bytes, tuple[int, ...]] | None:
        """The frames of the next packet and the streams they finish; ``None``: nothing."""
        if not self._packets:
            return None
        packet = self._packets.pop(0)
        return b"".join(packet.frames), tuple(packet.finished)

    def clear(self) -> None:
        """Forget what was not taken."""
        self._packets.clear()

    def _put(self, stream_id: int, kind: FrameKind, frame: bytes) -> _Packet:
        is_token = kind < FIRST_STRUCTURED_KIND
        if not self._packets or (is_token and stream_id in self._packets[-1].told):
            self._packets.append(_Packet())
        packet = self._packets[-1]
        packet.frames.append(frame)
        if not is_token:
            packet.told.add(stream_id)
        return packet
