"""Models that lie on this machine already."""

import os

from paddler.agent.models.causes import ModelUnavailable
from paddler.messages.agents import AgentIssue, ModelPath


class LocalFileMissing(ModelUnavailable):
    """There is no such file. Looking again costs nothing."""


def find_model(path: str) -> str:
    """``path``, if a file is there; :class:`LocalFileMissing` otherwise."""
    if not os.path.exists(path):
        raise LocalFileMissing(
            f"no such model file: {path}", AgentIssue(model_file_does_not_exist=ModelPath(path))
        )
    return _checked(path, AgentIssue(model_cannot_be_loaded=ModelPath(path)))


def find_projection(path: str) -> str:
    """The same for a multimodal projection, all of whose issues are one."""
    issue = AgentIssue(multimodal_projection_cannot_be_loaded=ModelPath(path))
    if not os.path.exists(path):
        raise LocalFileMissing(f"no such projection file: {path}", issue)
    return _checked(path, issue)


def _checked(path: str, issue: AgentIssue) -> str:
    # Who opens a named pipe, as a worker would, waits for ever.
    if not os.path.isfile(path):
        raise LocalFileMissing(f"not a file: {path}", issue)
    return path
