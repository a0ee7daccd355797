"""What endpoints take from requests alike."""

from typing import Any

import msgspec
import pytest

from paddler.balancer.services.openai.errors import ParameterError
from paddler.balancer.services.openai.requests import (
    RANGES,
    check_ranges,
    sampling_of,
    sampling_of_choice,
    stop_texts,
)
from paddler.messages.link import Sampling
from paddler.messages.openai.chat import ChatCompletionRequest
from paddler.messages.openai.completions import CompletionRequest
from paddler.messages.openai.responses import ResponsesRequest

SMALLEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


FORMS: dict[str, Any] = {"best_of": CompletionRequest, "max_output_tokens": ResponsesRequest}


def chat(**changes: Any) -> ChatCompletionRequest:
    return msgspec.convert(SMALLEST | changes, ChatCompletionRequest)


@pytest.mark.parametrize("name", sorted(RANGES))
def test_a_number_out_of_its_range_is_told_with_the_range(name: str) -> None:
    low, high = RANGES[name]
    form = FORMS.get(name, ChatCompletionRequest)
    required = SMALLEST if form is ChatCompletionRequest else {"model": "m"}
    for value in (low, high, None):
        check_ranges(msgspec.convert(required | {name: value}, form))
    for value in (low - 1, high + 1):
        if abs(value) >= 2**63:
            continue
        with pytest.raises(ParameterError, match=f"between {low} and {high}") as caught:
            check_ranges(msgspec.convert(required | {name: value}, form))
        assert caught.value.param == name


def test_each_choice_has_a_seed_of_its_own() -> None:
    seeded = Sampling(seed=7)
    assert [sampling_of_choice(seeded, index).seed for index in range(3)] == [7, 8, 9]
    assert sampling_of_choice(Sampling(), 2) == Sampling()


def test_an_endpoint_without_a_field_leaves_it_to_the_desired_state() -> None:
    assert sampling_of(object()) == Sampling()


@pytest.mark.parametrize(
    ("stop", "texts"), [(None, ()), ("", ()), ("a", ("a",)), (["a", "", "b"], ("a", "b"))]
)
def test_stop_is_a_text_or_several(stop: str | list[str] | None, texts: tuple[str, ...]) -> None:
    assert stop_texts(stop) == texts
