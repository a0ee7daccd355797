"""From a model reference to a file on this machine."""

import os

from msgspec import UNSET

from paddler.errors import PaddlerError
from paddler.messages.agents import AgentIssue, ModelPath
from paddler.messages.state import HuggingFaceModel, ModelReference, UrlModel


class ModelUnavailable(PaddlerError):
    """The file cannot be had now; ``issue`` tells operators why."""

    code = "model_unavailable"

    def __init__(self, message: str, issue: AgentIssue) -> None:
        super().__init__(message)
        self.issue = issue


def find_model(reference: ModelReference) -> str | None:
    """The model's path, ``None`` for no model; :class:`ModelUnavailable` otherwise."""
    path = find_file(reference)
    if path is not None and not os.path.exists(path):
        raise ModelUnavailable(
            f"no such model file: {path}", AgentIssue(model_file_does_not_exist=ModelPath(path))
        )
    return path


def find_projection(reference: ModelReference) -> str | None:
    """The multimodal projection's path, ``None`` for none; :class:`ModelUnavailable` otherwise."""
    path = find_file(reference)
    if path is not None and not os.path.exists(path):
        raise ModelUnavailable(
            f"no such projection file: {path}",
            AgentIssue(multimodal_projection_cannot_be_loaded=ModelPath(path)),
        )
    return path


def find_file(reference: ModelReference) -> str | None:
    """Where a reference points. Only files that lie on this machine already can be served."""
    if reference == "None":
        return None
    assert not isinstance(reference, str)
    if isinstance(reference.hugging_face, HuggingFaceModel):
        hub = reference.hugging_face
        refuse_download(f"{hub.repo_id}/{hub.revision}/{hub.filename}")
    if isinstance(reference.url, UrlModel):
        refuse_download(reference.url.url)
    assert reference.local_to_agent is not UNSET
    return reference.local_to_agent


def refuse_download(name: str) -> None:
    """Say that downloads are not there yet, in words that clients of this API know."""
    raise ModelUnavailable(
        f"{name}: this version does not download models; put the file on the agent's machine "
        'and use {"LocalToAgent": "/path"}',
        AgentIssue(model_cannot_be_loaded=ModelPath(name)),
    )
