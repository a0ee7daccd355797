"""``GET /v1/models``: the one model that the fleet is asked to run."""

import time
from typing import Final

import msgspec

from paddler.balancer.desired_state import DesiredStateStore
from paddler.balancer.services.openai.errors import Problem
from paddler.messages.openai.common import Model, ModelList
from paddler.messages.state import HuggingFaceModel, ModelReference, UrlModel
from paddler.net.http import Response, json

OWNER: Final = "paddler"

encode = msgspec.json.Encoder().encode


class ModelCatalogue:
    """Names the model. Any name is accepted in requests: there is one model to be had."""

    def __init__(self, state: DesiredStateStore) -> None:
        self._state = state
        self._changed_at = int(time.time())
        state.watch(self._on_state)

    def list_models(self) -> Response:
        """``GET /v1/models``."""
        return json(200, encode(ModelList(data=self._models())))

    def get_model(self, name: str) -> Response:
        """``GET /v1/models/{id}``."""
        for model in self._models():
            if model.id == name:
                return json(200, encode(model))
        known = ", ".join(model.id for model in self._models()) or "none"
        return Problem(
            404,
            f"The model {name!r} does not exist; the fleet runs: {known}",
            param="model",
            code="model_not_found",
        ).response()

    def _models(self) -> list[Model]:
        name = name_of(self._state.applicable.model)
        if name is None:
            return []
        return [Model(id=name, created=self._changed_at, owned_by=OWNER)]

    def _on_state(self) -> None:
        self._changed_at = int(time.time())


def name_of(reference: ModelReference) -> str | None:
    """The name of the file without its ending; ``None`` where no model is asked for."""
    if isinstance(reference, str):
        return None
    if isinstance(reference.hugging_face, HuggingFaceModel):
        path = reference.hugging_face.filename
    elif isinstance(reference.url, UrlModel):
        path = reference.url.url.split("?")[0].split("#")[0]
    else:
        path = str(reference.local_to_agent)
    return path.rstrip("/").rpartition("/")[2].removesuffix(".gguf") or path
