import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.agent.worker.engine_llama import start_backend
from paddler.agent.worker.images import RgbImage
from paddler.agent.worker.loading import LoadRefused, loaded
from paddler.agent.worker.prompts import Prompt
from paddler.messages.chat import Chat, Function, Message, Tool
from paddler.messages.inference import (
    ContinueFromConversationHistory,
    ConversationMessage,
)
from paddler.messages.link import ChatJob, ConversationJob, Delivery, FrameKind
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS
from paddler.messages.worker import Load, Opened, Progress
from tests.tiny_gguf import write_tiny_gguf, write_tiny_mmproj
from tests.tiny_memories import write_tiny_memory

HELLO = ConversationJob(
    ContinueFromConversationHistory(
        add_generation_prompt=True,
        conversation_history=[ConversationMessage("user", "Hello")],
        enable_thinking=False,
        max_tokens=5,
    )
)


@pytest.fixture(autouse=True)
def backend() -> None:
    start_backend()


def load_of(path: Path, **changes: Any) -> Load:
    small = {"context_size": 256, "n_batch": 64}
    parameters = msgspec.structs.replace(
        DEFAULT_INFERENCE_PARAMETERS, **small | changes.pop("parameters", {})
    )
    values = {
        "agent_label": "unnamed agent",
        "slots": 2,
        "threads": 1,
        "chat_template": None,
        "projection_path": None,
    }
    return Load(**values | changes, model_path=str(path), parameters=parameters)


def ignore(_: Progress) -> None:
    pass


def issues_of(load: Load) -> list[dict[str, Any]]:
    with pytest.raises(LoadRefused) as refused, loaded(load, ignore):
        pass
    assert str(refused.value)
    issues: list[dict[str, Any]] = msgspec.to_builtins(refused.value.issues)
    return list(issues)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


def test_ready_tells_what_is_loaded(tiny: Path) -> None:
    with loaded(load_of(tiny), ignore) as (_, prompts, ready):
        assert (ready.slots, ready.context_size, ready.notes) == (2, 256, [])
        assert ready.slot_context_size == 256
        assert ready.devices
        assert prompts.make(HELLO) == Prompt("<user>Hello\n<assistant>", 5)


def test_slots_get_parts_of_the_context_if_they_are_to(tiny: Path) -> None:
    asked = {"context_size": 512}
    with loaded(load_of(tiny, kv_unified=False, parameters=asked), ignore) as (engine, _, ready):
        assert not engine.kv_unified
        assert (ready.context_size, ready.slot_context_size, ready.notes) == (512, 256, [])


def test_a_context_that_is_larger_for_its_parts_is_told(tiny: Path) -> None:
    asked = {"context_size": 513}
    with loaded(load_of(tiny, kv_unified=False, parameters=asked), ignore) as (_, _prompts, ready):
        assert (ready.context_size, ready.slot_context_size) == (1024, 512)
        (note,) = ready.notes
        assert note == (
            "context_size is 513, but the context has 1024 tokens: with --no-kv-unified each of "
            "the 2 slots has a multiple of 256"
        )
    small = load_of(tiny, kv_unified=False, slots=1, parameters={"context_size": 100})
    with loaded(small, ignore) as (_, _prompts, ready):
        assert (ready.context_size, ready.notes) == (256, [])  # any context is rounded up as far


def test_a_model_that_is_not_divided_says_so(tmp_path: Path) -> None:
    path = write_tiny_memory(tmp_path / "tiny.gguf", "gemma3")
    with loaded(load_of(path, kv_unified=False), ignore) as (_, _prompts, ready):
        assert (ready.context_size, ready.slot_context_size) == (256, 256)
        (note,) = ready.notes
        assert note.startswith("--no-kv-unified has no effect on this model")
    with loaded(load_of(path, kv_unified=False, slots=1), ignore) as (_, _prompts, ready):
        assert ready.notes == []  # one slot has all of it anyway
    embedding = load_of(path, kv_unified=False, parameters={"enable_embeddings": True})
    with loaded(embedding, ignore) as (_, _prompts, ready):
        assert ready.notes == []  # nothing to be gained


def test_what_the_file_says_is_told_once_it_is_open(tiny: Path) -> None:
    told: list[Progress | Opened] = []
    with loaded(load_of(tiny), told.append):
        pass
    (opened,) = [one for one in told if isinstance(one, Opened)]
    assert opened.metadata["general.name"] == "tiny"
    assert set(opened.special_tokens) == {"bos_token", "eos_token", "nl_token"}


def test_progress_goes_from_loading_to_warm(tiny: Path) -> None:
    reports: list[Progress | Opened] = []
    with loaded(load_of(tiny), reports.append):
        pass
    told = [one for one in reports if isinstance(one, Progress)]
    assert [p.phase for p in told if p.fraction == 1.0] == ["loading", "warming"]
    assert all(0.0 <= progress.fraction <= 1.0 for progress in told)


def test_parent_that_leaves_while_loading_ends_it(tiny: Path) -> None:
    def leave(_: Progress | Opened) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"), loaded(load_of(tiny), leave):
        pass


def test_override_replaces_the_models_template(tiny: Path) -> None:
    override = "{{ messages[0].content }}!"
    with loaded(load_of(tiny, chat_template=override), ignore) as (_, prompts, _ready):
        assert prompts.make(HELLO) == Prompt("Hello!", 5)


# Says the tools' names, and shows calls in a way that the other template knows nothing of.
TOOLS_TEMPLATE = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}"
    "<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CALL = b'<tool_call>{"name": "find", "arguments": {}}</tool_call>'


def with_tools_template(path: Path, template: str) -> Path:
    return write_tiny_gguf(path, metadata={"tokenizer.chat_template.tool_use": template})


def asked_with_tools() -> ChatJob:
    messages = [Message(role="user", content="Hello")]
    tools = [Tool(Function("find", ""))]
    return ChatJob(Chat(messages=messages, max_tokens=5, enable_thinking=False, tools=tools))


def test_a_template_for_tools_writes_and_reads_requests_with_tools_alone(tmp_path: Path) -> None:
    path = with_tools_template(tmp_path / "m.gguf", TOOLS_TEMPLATE)
    with loaded(load_of(path), ignore) as (_, prompts, ready):
        assert ready.notes == []
        plain = prompts.make(HELLO)
        prompt = prompts.make(asked_with_tools())
        kinds = {
            made.text: {
                telling.kind
                for telling in prompts.begin_answer(
                    made, delivery=Delivery(), is_scored=False
                ).feed(CALL)
            }
            for made in (plain, prompt)
        }
    assert kinds == {
        "<user>Hello\n<assistant>": {FrameKind.UNDETERMINABLE},
        "[find]<user>Hello\n<assistant>": {FrameKind.TOOL_CALL},
    }


def test_an_override_replaces_a_template_for_tools_as_well(tmp_path: Path) -> None:
    path = with_tools_template(tmp_path / "m.gguf", TOOLS_TEMPLATE)
    override = "{{ messages[0].content }}!"
    with loaded(load_of(path, chat_template=override), ignore) as (_, prompts, _ready):
        assert prompts.make(asked_with_tools()).text == "Hello!"


def test_a_template_for_tools_that_does_not_compile_is_noted_and_not_used(tmp_path: Path) -> None:
    path = with_tools_template(tmp_path / "m.gguf", "{{")
    with loaded(load_of(path), ignore) as (_, prompts, ready):
        assert ready.notes == [
            "the model's chat template for tools does not compile and is not used: "
            "line 1: unexpected 'end of template'"
        ]
        assert prompts.make(asked_with_tools()).text == "<user>Hello\n<assistant>"


def test_gpu_layers_without_a_gpu_are_noted(tiny: Path) -> None:
    with loaded(load_of(tiny, parameters={"n_gpu_layers": -1}), ignore) as (_, _prompts, ready):
        assert len(ready.notes) == 1
        assert ready.notes[0].startswith("n_gpu_layers is -1, but this build")


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"GGUF\x03\x00\x00\x00"], ids=repr)
def test_file_that_is_no_model_cannot_be_loaded(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    assert issues_of(load_of(path)) == [{"ModelCannotBeLoaded": {"model_path": str(path)}}]


def test_cut_file_cannot_be_loaded(tiny: Path) -> None:
    tiny.write_bytes(tiny.read_bytes()[:-5000])
    assert issues_of(load_of(tiny)) == [{"ModelCannotBeLoaded": {"model_path": str(tiny)}}]


def test_unknown_architecture_cannot_be_loaded(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", architecture="nosuch")
    with pytest.raises(LoadRefused, match="nosuch"), loaded(load_of(path), ignore):
        pass


def test_model_without_a_template_is_reported(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", chat_template=None)
    assert issues_of(load_of(path)) == [{"UnableToFindChatTemplate": {"model_path": str(path)}}]


def test_template_that_does_not_compile_is_reported_with_its_line(tmp_path: Path) -> None:
    template = "{% for m in messages %}\n{{ m.content }\n{% endfor %}"
    path = write_tiny_gguf(tmp_path / "m.gguf", chat_template=template)
    assert issues_of(load_of(path)) == [
        {
            "ChatTemplateDoesNotCompile": {
                "error": "line 2: unexpected '}'",
                "model_path": {"model_path": str(path)},
                "template_content": template,
            }
        }
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"slots": 257}, "257 slots are more than the 256"),
        ({"parameters": {"k_cache_dtype": "Q8_0", "v_cache_dtype": "Q8_0"}}, "does not divide"),
    ],
    ids=["too many slots", "KV type"],
)
def test_context_that_cannot_be_made_blames_each_slot(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", heads=4)  # 16 per head: too few for a block
    issues = [issue["SlotCannotStart"] for issue in issues_of(load_of(path, **changes))]
    assert [issue["slot_index"] for issue in issues] == list(range(changes.get("slots", 2)))
    assert all(reason in issue["error"] for issue in issues)


def test_embeddings_mode_needs_no_template_and_generates_nothing(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", chat_template=None)
    load = load_of(path, parameters={"enable_embeddings": True})
    with loaded(load, ignore) as (engine, prompts, _ready):
        assert prompts is None
        assert engine.pooling_type == "Last"


def test_model_with_a_projection_sees_images(tiny: Path, tmp_path: Path) -> None:
    projection = write_tiny_mmproj(tmp_path / "mmproj.gguf")
    with loaded(load_of(tiny, projection_path=str(projection)), ignore) as (engine, _, _ready):
        picture = RgbImage(4, 4, bytes(48))
        prompt = engine.tokenize_with_images("<__media__>x", [picture], limit=256)
        assert prompt.image_cells == 8
        prompt.close()


@pytest.mark.parametrize(("sees", "width"), [(False, 64), (True, 500)])
def test_images_that_nothing_sees_are_decoded_but_kept_small(
    tiny: Path, tmp_path: Path, sees: bool, width: int
) -> None:
    projection = str(write_tiny_mmproj(tmp_path / "mmproj.gguf")) if sees else None
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="500" height="250"/>'
    url = f"data:,{base64.b64encode(svg).decode()}"
    with loaded(load_of(tiny, projection_path=projection), ignore) as (_, prompts, _ready):
        (image,) = prompts._prepare_images([url])
    assert (image.width, image.height) == (width, width // 2)


@pytest.mark.parametrize("width", [None, 0, 576], ids=["missing", "broken", "for another model"])
def test_projection_that_cannot_be_loaded_is_reported(
    tiny: Path, tmp_path: Path, width: int | None
) -> None:
    path = tmp_path / "mmproj.gguf"
    if width == 0:
        path.write_bytes(b"no projection")
    elif width:
        write_tiny_mmproj(path, projection_width=width)
    assert issues_of(load_of(tiny, projection_path=str(path))) == [
        {"MultimodalProjectionCannotBeLoaded": {"model_path": str(path)}}
    ]
