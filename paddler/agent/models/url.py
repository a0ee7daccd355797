"""Models behind an address: into Paddler's own cache, once for all agents of this machine."""

from collections.abc import Mapping
from typing import Final

import httpx2

from paddler.agent.models.causes import Cause, SourceFailed, issue_of, storage_errors
from paddler.agent.models.lock import LONG_WAIT_S, held
from paddler.agent.models.reports import Report, progress_reported, report_wait
from paddler.agent.models.split import part_names
from paddler.agent.models.transfer import IDLE_TIMEOUT_S, Partial, Source, is_gguf, receive
from paddler.agent.models.url_cache import Entry, cache_root
from paddler.messages.fetch import UrlJob

_MAX_PORT: Final = 65_535


def fetch_from_url(
    job: UrlJob,
    report: Report,
    environ: Mapping[str, str],
    *,
    long_wait_s: float = LONG_WAIT_S,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
) -> str:
    """The path of the model, fetched if it is not here; :class:`SourceFailed` otherwise."""
    urls = part_urls(check_url(job.url))
    root = cache_root(environ)
    if root is None:
        raise SourceFailed(
            Cause.NOT_WRITABLE, "no cache: set PADDLER_CACHE_DIR, XDG_CACHE_HOME or HOME"
        )
    entries = [Entry(root, url) for url in urls]
    on_wait = report_wait(report, issue_of(Cause.LOCKED, job))
    for url, entry in zip(urls, entries, strict=True):
        with storage_errors():
            if _is_whole(entry):
                continue
            entry.path.parent.mkdir(parents=True, exist_ok=True)
            with held(entry.lock, on_wait, long_wait_s=long_wait_s):
                _fetch(url, entry, report, idle_timeout_s)
    if len(entries) == 1:
        return str(entries[0].path)
    with storage_errors():
        return str(entries[0].link_parts([file_name(url) for url in urls], entries))


def check_url(text: str) -> str:
    """``text`` if it is an address that can be asked; :class:`SourceFailed` otherwise."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise SourceFailed(Cause.MALFORMED, str(error)) from error
    if url.scheme not in ("http", "https"):
        raise SourceFailed(Cause.MALFORMED, "the address begins with neither http:// nor https://")
    if not url.host or "%" in url.host:
        raise SourceFailed(Cause.MALFORMED, f'the address names no host: "{url.host}"')
    if url.port is not None and not 1 <= url.port <= _MAX_PORT:
        raise SourceFailed(Cause.MALFORMED, f"there is no port {url.port}")
    return text


def part_urls(url: str) -> tuple[str, ...]:
    """The addresses of all files of the model behind ``url``, the first one first."""
    ends = min(end for end in (url.find("?"), url.find("#"), len(url)) if end >= 0)
    begins = url.rfind("/", 0, ends) + 1
    return tuple(url[:begins] + name + url[ends:] for name in part_names(url[begins:ends]))


def file_name(url: str) -> str:
    """What the file behind ``url`` is called, for people and for llama.cpp's look at a name."""
    return httpx2.URL(url).path.rpartition("/")[2].replace("\0", "") or "model.gguf"


def _fetch(url: str, entry: Entry, report: Report, idle_timeout_s: float) -> None:
    """Fetch one file. The lock is held."""
    if entry.path.exists():
        if _is_whole(entry):  # Whoever held the lock before has fetched it.
            return
        entry.path.unlink()
        raise SourceFailed(Cause.CORRUPTED, f"{entry.path} was no GGUF file; it is deleted")
    partial = Partial(entry.partial)
    with progress_reported(report, file_name(url)) as on_progress:
        receive(Source(url=url, headers={}), partial, on_progress, idle_timeout_s=idle_timeout_s)
    partial.publish(entry.path)


def _is_whole(entry: Entry) -> bool:
    return entry.path.exists() and is_gguf(entry.path)
