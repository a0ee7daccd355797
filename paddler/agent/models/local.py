"""Models that lie on this machine already."""

import os

from paddler.agent.models.causes import ModelUnavailable
from paddler.messages.agents import AgentIssue, ModelPath


class LocalFileMissing(ModelUnavailable):
    """There is no such file. Looking again costs nothing."""


def find_model(path: str) -> str:
    """``path``, if something is there; :class:`LocalFileMissing` otherwise."""
    if not os.path.exists(path):
        raise LocalFileMissing(
            f"no such model file: {path}", AgentIssue(model_file_does_not_exist=ModelPath(path))
        )
    return path


def find_projection(path: str) -> str:
    """The same for a multimodal projection, whose issue is another."""
    if not os.path.exists(path):
        raise LocalFileMissing(
            f"no such projection file: {path}",
            AgentIssue(multimodal_projection_cannot_be_loaded=ModelPath(path)),
        )
    return path
