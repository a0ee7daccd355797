"""Messages between our own processes: they come back as sent, and an older peer talks on."""

import json
from collections.abc import Callable

import msgspec
import pytest

from paddler.messages import link, worker
from paddler.messages.agents import AgentIssue, AgentStatus, ModelPath
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ContinueFromRawPrompt,
    ConversationMessage,
    TokenUsage,
)
from paddler.messages.state import (
    DEFAULT_DESIRED_STATE,
    DEFAULT_INFERENCE_PARAMETERS,
    ApplicableState,
)
from paddler.messages.worker import PacketKind, encode_packet

STATUS = AgentStatus(
    desired_slots_total=4, issues=(AgentIssue(model_cannot_be_loaded=ModelPath("/a")),)
)
STATE = ApplicableState(
    chat_template_override=None,
    inference_parameters=DEFAULT_INFERENCE_PARAMETERS,
    model=DEFAULT_DESIRED_STATE.model,
    multimodal_projection="None",
)
START = link.StartStream(
    stream_id=7,
    job=link.ConversationJob(
        ContinueFromConversationHistory(
            add_generation_prompt=True,
            conversation_history=[ConversationMessage("user", "Hi")],
            enable_thinking=True,
            max_tokens=3,
        )
    ),
    sampling=link.Sampling(temperature=0.5, seed=1),
)
START_RAW = link.StartStream(
    stream_id=8, job=link.RawPromptJob(ContinueFromRawPrompt(raw_prompt="x", max_tokens=1))
)

FROM_AGENT = [
    (link.Hello(protocol=1, version="0.1.0", name=None, status=STATUS), "hello"),
    (link.StatusReport(STATUS), "status"),
    (link.Goodbye(), "goodbye"),
]
FROM_BALANCER = [
    (link.Welcome(1, "0.1.0"), "welcome"),
    (link.Refused("too old"), "refused"),
    (link.SetState(STATE, is_default=True), "set_state"),
    (START, "start"),
    (START_RAW, "start"),
    (link.StopStream(7), "stop"),
]
TO_WORKER = [
    (
        worker.Load(
            agent_label="unnamed agent",
            slots=4,
            threads=2,
            model_path="/a.gguf",
            projection_path=None,
            chat_template=None,
            parameters=DEFAULT_INFERENCE_PARAMETERS,
            kv_unified=False,
        ),
        "load",
    ),
    (worker.Reset(3), "reset"),
    (worker.Stop(), "stop_worker"),
    (START, "start"),
    (link.StopStream(7), "stop"),
]
FROM_WORKER = [
    (worker.Progress("loading", 0.5), "progress"),
    (
        worker.Ready(
            slots=4, context_size=8192, slot_context_size=2048, devices=["CPU"], notes=["slow"]
        ),
        "ready",
    ),
    (worker.LoadFailed(STATUS.issues, "no such file"), "load_failed"),
    (worker.ResetDone(3), "reset_done"),
]
MESSAGES = [
    *((message, tag, link.decode_from_agent) for message, tag in FROM_AGENT),
    *((message, tag, link.decode_from_balancer) for message, tag in FROM_BALANCER),
    *((message, tag, worker.decode_to_worker) for message, tag in TO_WORKER),
    *((message, tag, worker.decode_from_worker) for message, tag in FROM_WORKER),
]


@pytest.mark.parametrize(("message", "tag", "decode"), MESSAGES)
def test_a_message_comes_back_as_it_was_sent(
    message: msgspec.Struct, tag: str, decode: Callable[[bytes], object]
) -> None:
    encoded = link.encode(message)
    assert json.loads(encoded)["type"] == tag
    assert decode(encoded) == message


@pytest.mark.parametrize(("message", "tag", "decode"), MESSAGES)
def test_fields_of_a_newer_peer_are_ignored(
    message: msgspec.Struct, tag: str, decode: Callable[[bytes], object]
) -> None:
    newer = json.loads(link.encode(message)) | {"new_field": [1]}
    assert decode(json.dumps(newer).encode()) == message


def test_what_is_not_said_takes_its_default() -> None:
    assert b"sampling" not in link.encode(START_RAW)
    assert link.encode(START.sampling) == b'{"temperature":0.5,"seed":1}'
    assert b"is_default" not in link.encode(link.SetState(STATE))


@pytest.mark.parametrize("decode", [link.decode_from_agent, link.decode_from_balancer])
def test_an_unknown_message_is_refused(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(msgspec.ValidationError, match="Invalid value 'news'"):
        decode(b'{"type":"news"}')


def test_a_frame_is_laid_out_as_documented() -> None:
    frame = link.encode_data_frame(0x01020304, link.FrameKind.DONE, b"{}", link.FRAME_FINAL)
    assert frame == b"\x04\x03\x02\x01\x0a\x01\x00\x00\x02\x00\x00\x00{}"


def test_kinds_of_text_stand_below_the_structured_ones() -> None:
    assert [kind for kind in link.FrameKind if kind < link.FIRST_STRUCTURED_KIND] == [
        link.FrameKind.CONTENT,
        link.FrameKind.REASONING,
        link.FrameKind.TOOL_CALL,
        link.FrameKind.UNDETERMINABLE,
    ]


def test_endings_come_back_as_they_were_sent() -> None:
    finished = link.Finished(TokenUsage(prompt_tokens=3, content_tokens=2), "length")
    assert link.decode_finished(link.encode(finished)) == finished
    returned = link.Returned("the worker died")
    assert link.decode_returned(link.encode(returned)) == returned


@pytest.mark.parametrize(
    ("kind", "body", "finished", "packet"),
    [
        (PacketKind.CONTROL, b"{}", (), b"\x06\0\0\0\0\0\0\0{}"),
        (PacketKind.DATA, b"", (1, 0x0203), b"\x0c\0\0\0\1\0\2\0\1\0\0\0\3\2\0\0"),
        (PacketKind.DATA, b"abc", (9,), b"\x0b\0\0\0\1\0\1\0\x09\0\0\0abc"),
    ],
)
def test_a_packet_is_laid_out_as_documented(
    kind: PacketKind, body: bytes, finished: tuple[int, ...], packet: bytes
) -> None:
    assert encode_packet(kind, body, finished) == packet


def test_bias_keeps_its_tokens_as_numbers() -> None:
    sampling = link.Sampling(logit_bias={7: -100.0}, top_logprobs=0)
    text = link.encode(sampling)
    assert text == b'{"logit_bias":{"7":-100.0},"top_logprobs":0}'
    assert msgspec.json.decode(text, type=link.Sampling) == sampling
