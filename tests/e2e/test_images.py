"""Images on the real model, with a projection of random weights: it sees, but sees nothing."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openai import OpenAI
from PIL import Image

from paddler.messages.state import DEFAULT_DESIRED_STATE
from tests.clients.openai_tap import Tap
from tests.e2e.fleet import (
    PATIENT,
    Answer,
    Fleet,
    ask,
    ask_at_once,
    conversation,
    raw_prompt,
    tokens_of,
    usage_of,
    wait_until,
)
from tests.tiny_gguf import write_tiny_mmproj

SMOLLM2_WIDTH = 576

# ChatML, like the model's own template, but it takes parts.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle r="30"/></svg>'


def picture(format_name: str, width: int = 64, height: int = 64) -> str:
    """The ``data:`` address of an image."""
    data = SVG
    if format_name != "SVG":
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), "teal").save(buffer, format_name)
        data = buffer.getvalue()
    return "data:image/any;base64," + base64.b64encode(data).decode()


def about_image(url: str, max_tokens: int = 4) -> dict[str, Any]:
    """A native conversation about one image."""
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What is this?"},
    ]
    body = conversation("", max_tokens)
    body["conversation_history"] = [{"role": "user", "content": parts}]
    return body


def result_of(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The last message of an answer."""
    result: dict[str, Any] = messages[-1]["Response"]["response"]["GeneratedToken"]
    return result


def put_seeing_model(fleet: Fleet, model: Path, projection: Path, **parameters: Any) -> None:
    """Ask for a model with a projection."""
    state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
    state["inference_parameters"] |= {"context_size": 2048, **parameters}
    state["model"] = {"LocalToAgent": str(model)}
    state["multimodal_projection"] = {"LocalToAgent": str(projection)}
    state["chat_template_override"] = {"content": TEMPLATE}
    state["use_chat_template_override"] = True
    fleet.put_state(state)


@pytest.fixture(scope="module")
def projection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("projection") / "mmproj.gguf"
    return write_tiny_mmproj(path, projection_width=SMOLLM2_WIDTH, image_size=128)


@pytest.fixture(scope="module")
def shared_seeing_fleet(
    tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path, projection: Path
) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("seeing"), *PATIENT) as fleet:
        fleet.start_agent("eye", 4)
        put_seeing_model(fleet, smollm2_path, projection)
        fleet.wait_slots(4)
        yield fleet


@pytest.fixture
def seeing_fleet(shared_seeing_fleet: Fleet) -> Iterator[Fleet]:
    shared_seeing_fleet.wait_idle()
    yield shared_seeing_fleet
    shared_seeing_fleet.wait_idle()
    assert shared_seeing_fleet.slots_ready() == 4


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "SVG"])
def test_an_image_is_answered(seeing_fleet: Fleet, format_name: str) -> None:
    messages = ask(seeing_fleet.inference, about_image(picture(format_name)))
    usage = usage_of(messages)
    # An overview and one tile, 16 tokens each.
    assert usage["input_image_tokens"] == 32
    assert 0 < usage["prompt_tokens"] < 60


def test_images_and_texts_run_side_by_side(seeing_fleet: Fleet) -> None:
    bodies = [
        about_image(picture("PNG"), 12),
        raw_prompt("Once upon a time", 24),
        about_image(picture("JPEG", 200, 100), 12),
        conversation("Tell a story.", 24),
    ]
    answers = ask_at_once(seeing_fleet.inference, bodies)
    for messages in answers:
        assert "Done" in result_of(messages), messages[-1]
        assert tokens_of(messages)
    assert [usage_of(messages)["input_image_tokens"] > 0 for messages in answers] == [
        True,
        False,
        True,
        False,
    ]


def test_a_client_that_leaves_an_image_frees_the_slot(seeing_fleet: Fleet) -> None:
    answer = Answer(seeing_fleet.inference, about_image(picture("PNG"), 1000))
    answer.first()
    answer.cut()
    seeing_fleet.wait_idle()


def test_openai_clients_send_images(seeing_fleet: Fleet) -> None:
    image = picture("PNG")
    messages: Any = about_image(image)["conversation_history"]
    messages[0]["content"][0]["image_url"]["detail"] = "low"
    parts: Any = [
        {"type": "input_image", "image_url": image, "detail": "auto"},
        {"type": "input_text", "text": "What is this?"},
    ]
    with (
        Tap(seeing_fleet.openai) as tap,
        OpenAI(base_url=tap.url, api_key="unused", max_retries=0) as client,
    ):
        chat = client.chat.completions.create(model="any", messages=messages, max_tokens=4)
        response = client.responses.create(
            model="any", input=[{"role": "user", "content": parts}], max_output_tokens=4
        )
    assert chat.usage is not None
    assert response.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens > 0


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://example.com/cat.png", "Remote image URLs are not supported."),
        ("data:image/png;base64,@@@", "Invalid base64 payload: "),
        ("data:image/png;base64", "Invalid data URI: missing comma separator"),
        ("data:image/png;base64,AAAA", "Failed to convert image to PNG: "),
    ],
)
def test_a_broken_image_is_told_by_a_model_that_sees_none(
    fleet: Fleet, url: str, reason: str
) -> None:
    (message,) = ask(fleet.inference, about_image(url))
    text = result_of([message])["ImageDecodingFailed"]
    assert text.startswith(f'agent "agent-1": failed to decode images: {reason}')


def test_an_image_is_refused_by_a_model_that_sees_none(fleet: Fleet) -> None:
    (message,) = ask(fleet.inference, about_image(picture("PNG")))
    assert result_of([message]).keys() <= {"MultimodalNotSupported", "ChatTemplateError"}


def test_an_image_larger_than_a_batch_is_refused_and_the_agent_goes_on(
    tmp_path: Path, smollm2_path: Path, projection: Path
) -> None:
    with Fleet(tmp_path, *PATIENT) as fleet:
        agent = fleet.start_agent("eye", 2)
        put_seeing_model(fleet, smollm2_path, projection, n_batch=8)
        fleet.wait_slots(2)
        workers = agent.children()
        for format_name in ("JPEG", "SVG", "WEBP"):
            (message,) = ask(fleet.inference, about_image(picture(format_name)))
            assert result_of([message]) == {
                "ImageExceedsBatchSize": {"image_tokens": 16, "n_batch": 8}
            }
        assert tokens_of(ask(fleet.inference, raw_prompt("Once", 3)))
        assert agent.children() == workers


def test_a_projection_that_cannot_be_loaded_is_an_issue(tmp_path: Path, smollm2_path: Path) -> None:
    path = write_tiny_mmproj(tmp_path / "mmproj.gguf", projection_width=64)
    with Fleet(tmp_path, *PATIENT) as fleet:
        fleet.start_agent("eye", 1)
        put_seeing_model(fleet, smollm2_path, path)
        issue = {"MultimodalProjectionCannotBeLoaded": {"model_path": str(path)}}
        wait_until(
            lambda: fleet.snapshot() and fleet.snapshot()[0]["issues"] == [issue], "the issue"
        )
