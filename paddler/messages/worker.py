"""The pipe between agent and worker: a stream socketpair that carries packets.

A packet is ``u32 length | u8 kind | u8 0 | u16 finished_count | u32 stream_id … | body``,
little-endian; ``length`` counts everything after itself. ``finished_count`` ids name the
streams whose final frame is in this packet, so that the agent knows what still runs
without reading the data. Control packets carry one JSON message below; data packets
carry a run of frames as the link has it, to be forwarded as they are.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final

import msgspec

from paddler.messages._base import Wire
from paddler.messages.agents import AgentIssue
from paddler.messages.link import MAX_MESSAGE_BYTES, StartStream, StopStream
from paddler.messages.state import InferenceParameters

PACKET_HEADER: Final = struct.Struct("<IBBH")
MAX_PACKET_BYTES: Final = MAX_MESSAGE_BYTES


class PacketKind(IntEnum):
    """What the body of a packet is."""

    CONTROL = 0
    DATA = 1


# --- agent to worker ---------------------------------------------------------------------------


class Load(Wire, frozen=True, kw_only=True, tag="load"):
    """First message: what to load. Answered by :class:`Ready` or :class:`LoadFailed`."""

    agent_label: str  # 'agent "gpu-1"' or 'unnamed agent': opens the texts of errors
    slots: int
    threads: int
    model_path: str
    projection_path: str | None
    chat_template: str | None
    parameters: InferenceParameters
    kv_unified: bool = True  # all slots share the context; else each has an equal part of it


class Reset(Wire, frozen=True, tag="reset"):
    """End every stream without a frame. Answered by :class:`ResetDone`; data before it is stale."""

    epoch: int


class Ping(Wire, frozen=True, tag="ping"):
    """Answered by a :class:`Pong` between two steps: a worker that is stuck does not answer."""


class Stop(Wire, frozen=True, tag="stop_worker"):
    """End the process now."""


ToWorker = Load | Reset | Ping | Stop | StartStream | StopStream


# --- worker to agent ---------------------------------------------------------------------------


class Progress(Wire, frozen=True, tag="progress"):
    """Where loading stands: ``phase`` is ``loading`` or ``warming``, ``fraction`` 0 to 1."""

    phase: str
    fraction: float


class Opened(Wire, frozen=True, kw_only=True, tag="opened"):
    """The model file can be read; loading goes on, and may still fail."""

    metadata: dict[str, str]
    special_tokens: dict[str, str]


class Ready(Wire, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded and warm."""

    slots: int
    context_size: int
    slot_context_size: int  # what one request can have of it at most
    devices: list[str]
    notes: list[str]  # warnings for the log, e.g. GPU layers asked for on a build without GPU


class LoadFailed(Wire, frozen=True, tag="load_failed"):
    """The model cannot run; the worker ends after this. ``reason`` is for the log."""

    issues: tuple[AgentIssue, ...]
    reason: str


class ResetDone(Wire, frozen=True, tag="reset_done"):
    """Every packet after this one belongs to streams started after the :class:`Reset`."""

    epoch: int


class Pong(Wire, frozen=True, tag="pong"):
    """Answer to a :class:`Ping`."""


FromWorker = Progress | Opened | Ready | LoadFailed | ResetDone | Pong

decode_to_worker: Callable[[bytes | bytearray], ToWorker] = msgspec.json.Decoder(ToWorker).decode
decode_from_worker: Callable[[bytes], FromWorker] = msgspec.json.Decoder(FromWorker).decode
encode = msgspec.json.Encoder().encode


def encode_packet(kind: PacketKind, body: bytes, finished: tuple[int, ...] = ()) -> bytes:
    """One packet, ready to be sent."""
    ids = struct.pack(f"<{len(finished)}I", *finished)
    length = PACKET_HEADER.size - 4 + len(ids) + len(body)
    return PACKET_HEADER.pack(length, kind, 0, len(finished)) + ids + body
