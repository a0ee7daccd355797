"""From what the desired state names to a path on this machine."""

from collections.abc import Callable

from msgspec import UNSET

from paddler.agent.models.fetching import OnFetchEvent, fetch
from paddler.agent.models.local import find_model, find_projection
from paddler.messages.fetch import FetchJob, HubJob, UrlJob
from paddler.messages.state import HuggingFaceModel, ModelReference, UrlModel


def is_elsewhere(reference: ModelReference) -> bool:
    """Whether it may have to be downloaded."""
    return reference != "None" and (reference.local_to_agent is UNSET)


async def obtain_model(reference: ModelReference, on_event: OnFetchEvent) -> str | None:
    """The model's path, ``None`` for no model. Takes as long as a download takes.

    Raises :class:`~paddler.agent.models.causes.ModelUnavailable`.
    """
    return await _obtain(reference, find_model, on_event)


async def obtain_projection(reference: ModelReference, on_event: OnFetchEvent) -> str | None:
    """The same for a multimodal projection."""
    return await _obtain(reference, find_projection, on_event)


async def _obtain(
    reference: ModelReference, find_local: Callable[[str], str], on_event: OnFetchEvent
) -> str | None:
    if reference == "None":
        return None
    assert not isinstance(reference, str)
    job: FetchJob
    if isinstance(hub := reference.hugging_face, HuggingFaceModel):
        job = HubJob(repo_id=hub.repo_id, revision=hub.revision, filename=hub.filename)
    elif isinstance(reference.url, UrlModel):
        job = UrlJob(reference.url.url)
    else:
        assert reference.local_to_agent is not UNSET
        return find_local(reference.local_to_agent)
    return await fetch(job, on_event)
