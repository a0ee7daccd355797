"""The list of models."""

import json
from typing import Any

import msgspec
import pytest

from paddler.balancer.services.openai.models import name_of
from paddler.messages.state import DEFAULT_DESIRED_STATE, DesiredState
from tests.balancer.services.running import Running, on_balancer

HUB = {"HuggingFace": {"repo_id": "a/b", "filename": "q/model-Q4.gguf", "revision": "main"}}


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("None", None),
        ({"LocalToAgent": "/models/tiny.Q4_1.gguf"}, "tiny.Q4_1"),
        ({"LocalToAgent": "model"}, "model"),
        (HUB, "model-Q4"),
        ({"Url": {"url": "https://example.com/x/big.gguf?download=true"}}, "big"),
    ],
)
def test_a_model_is_named_by_its_file(reference: object, name: str | None) -> None:
    state: dict[str, Any] = msgspec.to_builtins(DEFAULT_DESIRED_STATE) | {"model": reference}
    assert name_of(msgspec.convert(state, DesiredState).model) == name


def test_the_fleets_model_is_the_one_that_can_be_asked() -> None:
    async def test(running: Running) -> None:
        async def listed() -> list[dict[str, Any]]:
            answer = await running.get(running.openai, "/v1/models")
            models = json.loads(answer.body)
            assert models["object"] == "list"
            data: list[dict[str, Any]] = models["data"]
            return data

        assert await listed() == []
        await running.put_state(msgspec.to_builtins(DEFAULT_DESIRED_STATE) | {"model": HUB})
        (model,) = await listed()
        assert model.pop("created") > 1_700_000_000
        assert model == {"id": "model-Q4", "object": "model", "owned_by": "paddler"}
        assert (await running.get(running.openai, "/v1/models/model-Q4")).status == 200
        unknown = await running.get(running.openai, "/v1/models/gpt-4%2Fx")
        assert unknown.status == 404
        error = json.loads(unknown.body)["error"]
        assert error["code"] == "model_not_found"
        assert error["message"] == "The model 'gpt-4/x' does not exist; the fleet runs: model-Q4"

    on_balancer(test)
