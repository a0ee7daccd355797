"""The desired state as clients send and read it."""

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.messages.state import (
    DEFAULT_DESIRED_STATE,
    DEFAULT_INFERENCE_PARAMETERS,
    F32_MAX,
    DesiredState,
    InferenceParameters,
    ModelReference,
    ModelSource,
    UrlModel,
    model_for_logs,
    shortest_f32,
)

DEFAULT_JSON: dict[str, Any] = {
    "chat_template_override": None,
    "inference_parameters": {
        "n_batch": 2048,
        "context_size": 8192,
        "embedding_batch_size": 256,
        "enable_embeddings": False,
        "image_resize_to_fit": 1024,
        "k_cache_dtype": "Q8_0",
        "v_cache_dtype": "Q8_0",
        "min_p": 0.05,
        "n_gpu_layers": 0,
        "penalty_frequency": 0.0,
        "penalty_last_n": -1,
        "penalty_presence": 0.8,
        "penalty_repeat": 1.1,
        "pooling_type": "Last",
        "temperature": 0.8,
        "top_k": 80,
        "top_p": 0.8,
    },
    "model": "None",
    "multimodal_projection": "None",
    "use_chat_template_override": False,
}


def decode(state: dict[str, Any]) -> DesiredState:
    return msgspec.json.decode(json.dumps(state).encode(), type=DesiredState)


def with_parameters(**changes: Any) -> dict[str, Any]:
    return DEFAULT_JSON | {"inference_parameters": DEFAULT_JSON["inference_parameters"] | changes}


def to_json(value: object) -> Any:
    return json.loads(msgspec.json.encode(value))


def test_the_default_state_is_exactly_this() -> None:
    assert to_json(DEFAULT_DESIRED_STATE) == DEFAULT_JSON


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"chat_template_override": {"content": "{{ x }}"}, "use_chat_template_override": True},
        {"model": {"LocalToAgent": "/models/a.gguf"}},
        {"model": {"Url": {"url": "https://example.com/a.gguf"}}},
        {"model": {"HuggingFace": {"filename": "d/a.gguf", "repo_id": "o/r", "revision": "main"}}},
        {"multimodal_projection": {"LocalToAgent": "/models/mmproj.gguf"}},
    ],
)
def test_a_state_comes_back_as_it_was_sent(change: dict[str, Any]) -> None:
    assert to_json(decode(DEFAULT_JSON | change)) == DEFAULT_JSON | change


def test_only_the_template_may_be_left_out() -> None:
    whole = dict(DEFAULT_JSON)
    del whole["chat_template_override"]
    assert decode(whole) == DEFAULT_DESIRED_STATE
    for key in whole:
        with pytest.raises(msgspec.ValidationError, match=f"missing required field `{key}`"):
            decode({k: v for k, v in whole.items() if k != key})


@pytest.mark.parametrize("key", DEFAULT_JSON["inference_parameters"])
def test_every_inference_parameter_is_required(key: str) -> None:
    parameters = {k: v for k, v in DEFAULT_JSON["inference_parameters"].items() if k != key}
    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{key}`"):
        decode(DEFAULT_JSON | {"inference_parameters": parameters})


@pytest.mark.parametrize(
    "state",
    [
        DEFAULT_JSON | {"extra": 1},
        with_parameters(extra=1),
        DEFAULT_JSON | {"chat_template_override": {"content": "", "extra": 1}},
        DEFAULT_JSON | {"model": {"Url": {"url": "https://a", "extra": 1}}},
        DEFAULT_JSON | {"model": {"Elsewhere": "/a"}},
    ],
)
def test_unknown_keys_are_refused(state: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(state)


@pytest.mark.parametrize(
    "model", [{}, {"LocalToAgent": "/a", "Url": {"url": "https://a"}}, "Some", None, 1]
)
def test_a_model_is_none_or_exactly_one_source(model: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(DEFAULT_JSON | {"model": model})


def test_a_source_made_here_is_one_source_too() -> None:
    assert ModelSource(local_to_agent="/a").local_to_agent == "/a"
    with pytest.raises(ValueError, match="exactly one of the keys None, HuggingFace"):
        ModelSource()


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("n_batch", [1, 2**32 - 1], [0, -1, 2**32, 1.5, "1"]),
        ("context_size", [0, 2**32 - 1], [-1, 2**32]),
        ("embedding_batch_size", [1], [0]),
        ("enable_embeddings", [True], [1, "true"]),
        ("image_resize_to_fit", [1], [0]),
        ("k_cache_dtype", ["F32", "F16", "BF16", "Q5_1", "IQ4_NL"], ["f16", "Q6_K", None]),
        ("v_cache_dtype", ["Q4_0", "Q4_1", "Q5_0", "Q8_0"], ["", 8]),
        ("min_p", [0, 1.0], [-0.1, 1.1]),
        ("n_gpu_layers", [-1, 2**31 - 1], [-2, 2**31]),
        ("penalty_frequency", [-2.0, 2.0, F32_MAX, -F32_MAX], [1e39, None]),
        ("penalty_last_n", [-1, 0, 64], [-2]),
        ("penalty_presence", [-2.0, 2], ["2"]),
        ("penalty_repeat", [1e-6, 2.0], [0.0, -1.0]),
        (
            "pooling_type",
            ["Unspecified", "None", "Mean", "Cls", "Last", "Rank"],
            ["mean", None],
        ),
        ("temperature", [0, 2.5], [-0.1]),
        ("top_k", [-1, 0, 40], [2**31, -(2**31) - 1]),
        ("top_p", [0.0, 1], [7, -1]),
    ],
)
def test_parameters_have_ranges(name: str, allowed: list[Any], refused: list[Any]) -> None:
    for value in allowed:
        decode(with_parameters(**{name: value}))
    for value in refused:
        with pytest.raises(msgspec.ValidationError, match=rf"\$\.inference_parameters\.{name}"):
            decode(with_parameters(**{name: value}))


@pytest.mark.parametrize(
    ("sent", "printed"),
    [
        (0.8, "0.8"),
        (1, "1.0"),
        (0.123456789, "0.12345679"),
        (0.112246595, "0.112246595"),
        (1 / 3, "0.33333334"),
        (1.1, "1.1"),
        (16777217, "16777216.0"),
        (1e-45, "1e-45"),
        (F32_MAX, "3.4028235e38"),
    ],
)
def test_fractions_are_printed_as_the_shortest_32_bit_float(sent: float, printed: str) -> None:
    state = decode(with_parameters(penalty_presence=sent))
    assert b'"penalty_presence":%b,' % printed.encode() in msgspec.json.encode(state)


@given(value=st.floats(width=32, allow_infinity=False, allow_nan=False))
def test_the_shortest_float_is_the_same_32_bit_float(value: float) -> None:
    short = shortest_f32(value)
    assert struct.pack("<f", short) == struct.pack("<f", value)
    assert shortest_f32(short) == short
    assert len(f"{short:.9g}".rstrip("0")) <= len(f"{value:.9g}")


def test_states_that_are_the_same_on_the_wire_are_equal() -> None:
    nearly = decode(with_parameters(temperature=0.800000001))
    assert nearly == DEFAULT_DESIRED_STATE


def test_parameters_made_here_are_rounded_too() -> None:
    parameters = msgspec.structs.replace(DEFAULT_DESIRED_STATE.inference_parameters, top_p=1 / 3)
    assert isinstance(parameters, InferenceParameters)
    assert parameters.top_p == 0.33333334


F32 = st.floats(min_value=-3.4e38, max_value=3.4e38)


@given(
    penalty_repeat=F32,
    temperature=F32,
    penalty_presence=F32,
    top_p=st.floats(-0.5, 1.5),
)
def test_every_accepted_state_survives_its_own_printing(**values: float) -> None:
    parameters = msgspec.to_builtins(DEFAULT_INFERENCE_PARAMETERS) | values
    try:
        accepted = msgspec.convert(parameters, InferenceParameters)
    except msgspec.ValidationError:
        return
    printed = msgspec.json.encode(accepted)
    assert msgspec.json.decode(printed, type=InferenceParameters) == accepted


def test_no_model_may_be_said_as_an_object() -> None:
    wire = msgspec.to_builtins(DEFAULT_DESIRED_STATE) | {"model": {"None": None}}
    assert msgspec.convert(wire, DesiredState) == DEFAULT_DESIRED_STATE


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("None", '"None"'),
        (ModelSource(local_to_agent="/m.gguf"), '{"LocalToAgent":"/m.gguf"}'),
        (
            ModelSource(url=UrlModel("https://me:secret@models.test:8443/a.gguf?sig=secret#x")),
            "https://models.test:8443/a.gguf",
        ),
        (ModelSource(url=UrlModel("http://models.test/a.gguf")), "http://models.test/a.gguf"),
        (ModelSource(url=UrlModel("http://[secret")), "an address that is none"),
        (ModelSource(url=UrlModel("http://me:secret@[::1]:80/a.gguf")), "http://[::1]:80/a.gguf"),
    ],
)
def test_logs_hold_no_secret_of_an_address(model: ModelReference, told: str) -> None:
    assert model_for_logs(model) == told
