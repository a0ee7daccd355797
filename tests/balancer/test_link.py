"""Streams on an agent's link, with a socket that records what is sent."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from paddler._fastpath import FRAMING_RAW, FrameReader, Sink, encode_frame
from paddler.balancer.link import AgentLink, Completed, Concluded, Lost, Stream
from paddler.balancer.pool import Agent, Pool
from paddler.errors import RemoteProtocolError
from paddler.messages import link as wire
from paddler.messages.inference import ContinueFromRawPrompt, Failure, TokenUsage
from paddler.messages.link import FRAME_FINAL, FrameKind, encode_data_frame
from tests.balancer.test_pool import status

JOB = wire.RawPromptJob(ContinueFromRawPrompt(raw_prompt="x", max_tokens=3))


class Socket:
    """Remembers the control messages."""

    def __init__(self) -> None:
        self.sent: list[wire.FromBalancer] = []
        self.closed_with: int | None = None

    def send_text(self, data: bytes) -> None:
        self.sent.append(wire.decode_from_balancer(data))

    send_text_soon = send_text

    def close(self, code: int, reason: str) -> None:
        self.closed_with = code


class Outlet:
    """Gathers an answer."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.results: list[bytes] = []
        self.was_overrun = False

    def open_sink(self, stream_id: int, agent: Agent, now: float) -> Sink:
        return Sink(stream_id, self.written.append, FRAMING_RAW, (b"<",), b">", now, 8)

    def on_result(self, kind: FrameKind, payload: bytes, agent: Agent) -> None:
        self.results.append(payload)

    def on_overrun(self) -> None:
        self.was_overrun = True


class Bench:
    """A link with one agent of two slots in a pool."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.link = AgentLink(self.socket, asyncio.get_running_loop().time)
        self.pool = Pool()
        self.agent = self.pool.join("id", "gpu-1", status(2), self.link)
        self.outlet = Outlet()

    def start(self, item_timeout_s: float = 60.0) -> Stream:
        lease = self.pool.claim()
        assert lease is not None
        return self.link.start(
            lease, JOB, wire.Sampling(), wire.Delivery(), self.outlet, item_timeout_s
        )

    def hear(self, stream: Stream, kind: FrameKind, payload: bytes, flags: int = 0) -> None:
        frame = encode_data_frame(stream.stream_id, kind, payload, flags)
        self.link.on_data(memoryview(bytearray(frame)))


def on_bench(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await test(Bench())

    asyncio.run(run())


DONE = msgspec.json.encode(wire.Finished(TokenUsage(prompt_tokens=1, content_tokens=2), "stop"))


def test_a_stream_is_started_and_its_tokens_reach_the_sink() -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start()
        assert bench.socket.sent == [wire.StartStream(stream_id=stream.stream_id, job=JOB)]
        bench.hear(stream, FrameKind.CONTENT, b"hi")
        assert bench.outlet.written == [b"<hi>"]
        assert not stream.ended.done()

    on_bench(test)


def test_the_final_frame_ends_the_stream_and_frees_the_slot() -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start()
        assert bench.pool.slots_busy == 1
        bench.hear(stream, FrameKind.DONE, DONE, FRAME_FINAL)
        ending = stream.ended.result()
        assert isinstance(ending, Completed)
        assert ending.finished.reason == "stop"
        assert ending.agent is bench.agent
        assert bench.pool.slots_busy == 0
        assert len(bench.link) == 0

    on_bench(test)


@pytest.mark.parametrize(
    ("kind", "payload", "ending_type"),
    [
        (FrameKind.FAILED, b'{"SamplerError":"x"}', Concluded),
        (FrameKind.RETURNED, b'{"reason":"x"}', Lost),
        (FrameKind.RESULT, b"{}", Lost),  # final without an end: never silent
    ],
)
def test_every_final_frame_ends_the_stream(
    kind: FrameKind, payload: bytes, ending_type: type
) -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start()
        bench.hear(stream, kind, payload, FRAME_FINAL)
        assert isinstance(stream.ended.result(), ending_type)
        assert bench.pool.slots_busy == 0

    on_bench(test)


def test_a_result_that_is_not_final_goes_to_the_outlet() -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start()
        bench.hear(stream, FrameKind.RESULT, b'{"ToolCallParsed":[]}')
        assert bench.outlet.results == [b'{"ToolCallParsed":[]}']
        assert not stream.ended.done()

    on_bench(test)


def test_a_stopped_stream_keeps_its_slot_until_the_agent_confirms() -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start()
        stream.stop(Failure(499, "gone"))
        stream.stop(Failure(504, "again"))
        assert stream.ended.result() == Failure(499, "gone")
        assert bench.socket.sent[1:] == [wire.StopStream(stream.stream_id)]
        bench.hear(stream, FrameKind.CONTENT, b"late")
        assert bench.outlet.written == []
        assert bench.pool.slots_busy == 1
        bench.hear(stream, FrameKind.DONE, DONE, FRAME_FINAL)
        assert bench.pool.slots_busy == 0
        assert stream.ended.result() == Failure(499, "gone")

    on_bench(test)


def test_silence_past_the_item_timeout_ends_the_answer_and_later_gives_the_slot_back() -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start(item_timeout_s=0.01)
        ending = await stream.ended
        assert ending == Failure(
            504,
            "Inference timed out after 10ms waiting for next token. "
            "Increase --inference-item-timeout if the prompt requires longer processing.",
        )
        assert isinstance(bench.socket.sent[-1], wire.StopStream)
        while bench.pool.slots_busy:  # the agent never confirms
            await asyncio.sleep(0)
        assert len(bench.link) == 0

    on_bench(test)


def test_of_several_streams_only_the_silent_one_ends() -> None:
    async def test(bench: Bench) -> None:
        patient = bench.start(item_timeout_s=60.0)
        silent = bench.start(item_timeout_s=0.01)  # to be noticed before what was watched for
        assert isinstance(await silent.ended, Failure)
        while bench.pool.slots_busy > 1:
            await asyncio.sleep(0)
        assert not patient.ended.done()
        bench.link.on_lost()
        assert isinstance(patient.ended.result(), Lost)

    on_bench(test)


def test_every_frame_puts_the_item_timeout_off() -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start(item_timeout_s=0.05)
        loop = asyncio.get_running_loop()
        until = loop.time() + 0.15
        while loop.time() < until:
            bench.hear(stream, FrameKind.CONTENT, b"x")
            await asyncio.sleep(0)
        assert not stream.ended.done()
        stream.end(Lost("test over"))

    on_bench(test)


def test_a_lost_link_ends_every_stream() -> None:
    async def test(bench: Bench) -> None:
        streams = [bench.start(), bench.start()]
        bench.link.on_lost()
        for stream in streams:
            assert stream.ended.result() == Lost("Agent controller connection closed")
        assert len(bench.link) == 0
        late = bench.pool.claim()
        assert late is not None
        stream = bench.link.start(late, JOB, wire.Sampling(), wire.Delivery(), bench.outlet, 60.0)
        assert isinstance(stream.ended.result(), Lost)

    on_bench(test)


def test_a_replaced_link_is_closed() -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start()
        bench.pool.join("id", "gpu-1", status(2), AgentLink(Socket(), lambda: 0.0))
        assert isinstance(stream.ended.result(), Lost)
        assert bench.socket.closed_with == 1008

    on_bench(test)


def test_a_client_that_reads_too_slowly_is_cut_off() -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start()
        stream.sink.is_paused = True
        bench.hear(stream, FrameKind.CONTENT, b"123456789")
        assert bench.outlet.was_overrun
        assert isinstance(bench.socket.sent[-1], wire.StopStream)

    on_bench(test)


def test_stopping_all_ends_every_answer_with_the_failure() -> None:
    async def test(bench: Bench) -> None:
        streams = [bench.start(), bench.start()]
        bench.link.stop_all(Failure(503, "balancer is shutting down"))
        assert all(s.ended.result() == Failure(503, "balancer is shutting down") for s in streams)

    on_bench(test)


def test_messages_that_are_still_framed_are_heard_in_order() -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start()
        bench.outlet.results = bench.outlet.written

        def message(kind: FrameKind, payload: bytes, flags: int = 0) -> bytes:
            data = encode_data_frame(stream.stream_id, kind, payload, flags)
            return encode_frame(2, data, 0x1020304)

        data = bytearray(
            message(FrameKind.CONTENT, b"one")
            + message(FrameKind.RESULT, b"{}")
            + message(FrameKind.CONTENT, b"two")
            + message(FrameKind.DONE, DONE, FRAME_FINAL)
        )
        heard_at = asyncio.get_running_loop().time() + 5.0
        reader = FrameReader(memoryview(data), lambda: heard_at)
        reader.relay_to(bench.link.relay, 1_000, bench.link.on_frames)
        reader.buffer_updated(len(data))
        assert stream.sink.heard_at == heard_at
        assert bench.link.ages()[1] <= -4.0
        assert bench.outlet.written == [b"<one>", b"{}", b"<two>"]
        assert isinstance(stream.ended.result(), Completed)
        assert bench.pool.slots_busy == 0

    on_bench(test)


def test_frames_of_unknown_streams_are_dropped() -> None:
    async def test(bench: Bench) -> None:
        bench.link.on_data(memoryview(encode_data_frame(77, FrameKind.DONE, DONE, FRAME_FINAL)))
        assert bench.outlet.written == []

    on_bench(test)


@pytest.mark.parametrize(
    ("kind", "payload"), [(FrameKind.DONE, b"{"), (FrameKind.RETURNED, b"{}"), (99, b"")]
)
def test_a_frame_that_makes_no_sense_is_the_peers_fault(kind: int, payload: bytes) -> None:
    async def test(bench: Bench) -> None:
        stream = bench.start()
        frame = wire.FRAME_HEADER.pack(stream.stream_id, kind, FRAME_FINAL, 0, len(payload))
        with pytest.raises(RemoteProtocolError, match=f"kind {int(kind)} on stream"):
            bench.link.on_data(memoryview(frame + payload))
        stream.end(Lost("test over"))

    on_bench(test)
