"""Models of the Hugging Face Hub, in the cache that all Hub tools of this machine share.

The Hub's library looks files up, on the Hub and in the cache, and knows tokens, endpoint and
offline mode. The bytes come by :mod:`~paddler.agent.models.transfer`, as the library's own
transfer deletes what it has when it is interrupted; then they are named and noted as the
cache's layout has it (``huggingface.co/docs/huggingface_hub/guides/manage-cache``).
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.file_download import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    repo_folder_name,
    try_to_load_from_cache,
)
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # they are exported lazily
    build_hf_headers,
    tqdm,
)

from paddler.agent.models.causes import Cause, SourceFailed, storage_errors
from paddler.agent.models.lock import LONG_WAIT_S, held
from paddler.agent.models.reports import Report, progress_reported, report_wait
from paddler.agent.models.split import part_names
from paddler.agent.models.transfer import (
    Partial,
    Source,
    cause_of_status,
    describe,
    is_gguf,
    receive,
)
from paddler.messages.agents import AgentIssue, HubLock, ModelPath
from paddler.messages.fetch import HubJob

log = logging.getLogger(__name__)

ASK_TIMEOUT_S: Final = 3.0
"""For the Hub to say whether a branch has moved, when an older copy could be used."""

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PLAIN_NAME: Final = re.compile(r"[\w-][\w.-]*", re.ASCII)


class Hub(msgspec.Struct, frozen=True, kw_only=True):
    """Which Hub, and its cache here. By default what the library reads from the environment."""

    endpoint: str = constants.ENDPOINT
    cache: Path = msgspec.field(default_factory=lambda: Path(constants.HF_HUB_CACHE).absolute())
    is_offline: bool = msgspec.field(default_factory=constants.is_offline_mode)
    max_plain_bytes: int = constants.MAX_HTTP_DOWNLOAD_SIZE
    """Larger files the Hub does not serve by plain HTTP: they are left to its library."""


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file at one commit."""

    name: str
    revision: str  # as it was asked for
    commit: str
    etag: str  # the content's SHA-256, or git's hash of a small file
    size: int | None


def fetch_from_hub(
    job: HubJob,
    report: Report,
    hub: Hub,
    *,
    long_wait_s: float = LONG_WAIT_S,
) -> str:
    """The path of the model, fetched if it is not here; :class:`SourceFailed` otherwise.

    A branch or tag is looked up each time; if that fails, what it stood for last is good
    enough.
    """
    check_names(job)
    names = part_names(job.filename)
    repo = Repository(hub, job.repo_id)
    known = repo.find(names, job.revision)
    if known is not None and (_COMMIT.fullmatch(job.revision) or hub.is_offline):
        return known
    if hub.is_offline:
        raise SourceFailed(
            Cause.UNREACHABLE,
            f"HF_HUB_OFFLINE is set, and {repo.folder} has no {job.filename} at {job.revision}",
        )
    try:
        files = repo.look_up(names, job.revision, ASK_TIMEOUT_S if known is not None else None)
    except SourceFailed as failure:
        if known is None:
            raise
        log.warning("cannot look up %s, using what is cached: %s", job.name, failure)
        return known
    for file in files:
        if repo.has(file):
            continue
        if hub.max_plain_bytes < (file.size or 0):
            _fetch_by_library(repo, file, report)
        else:
            _fetch(job, repo, file, report, long_wait_s)
    path = repo.find(names, files[0].commit)
    assert path is not None, f"{job.name} is not where it was just put"
    if repo.find(names, job.revision) != path:
        repo.note_revision(files[0])
    return path


def check_names(job: HubJob) -> None:
    """Refuse names that no repository can have, before they become paths."""
    for what, name in (("file", job.filename), ("revision", job.revision)):
        if not name.isprintable() or any(part in ("", ".", "..") for part in name.split("/")):
            raise SourceFailed(Cause.MISSING, f'no {what} can be called "{name}"')


class Repository:
    """A repository on the Hub, and its part of the cache: ``blobs``, ``refs``, ``snapshots``."""

    def __init__(self, hub: Hub, repo_id: str) -> None:
        with hub_errors():
            name = repo_folder_name(repo_id=repo_id, repo_type="model")
        self._hub = hub
        self._repo_id = repo_id
        self.folder = hub.cache / name
        self._locks = hub.cache / ".locks" / name

    # --- on the Hub ----------------------------------------------------------------------------

    def url(self, name: str, revision: str) -> str:
        """The address of a file."""
        with hub_errors():
            return hf_hub_url(self._repo_id, name, revision=revision, endpoint=self._hub.endpoint)

    def look_up(
        self, names: tuple[str, ...], revision: str, timeout_s: float | None
    ) -> list[HubFile]:
        """What the Hub says of the files; all at one commit."""
        files: list[HubFile] = []
        for name in names:
            with hub_errors():
                metadata = get_hf_file_metadata(
                    self.url(name, revision), timeout=timeout_s or constants.HF_HUB_ETAG_TIMEOUT
                )
            commit, etag = metadata.commit_hash, metadata.etag
            if not _COMMIT.fullmatch(commit or "") or not _PLAIN_NAME.fullmatch(etag or ""):
                raise SourceFailed(
                    Cause.ERRORED,
                    f"{self._hub.endpoint} does not answer as a Hugging Face Hub does; "
                    "check HF_ENDPOINT and the proxy",
                )
            assert commit is not None
            assert etag is not None
            files.append(
                HubFile(name=name, revision=revision, commit=commit, etag=etag, size=metadata.size)
            )
            revision = commit
        return files

    def download(self, file: HubFile, bar: type[tqdm]) -> None:
        """Have the library bring ``file`` here."""
        with storage_errors(), hub_errors():
            hf_hub_download(
                self._repo_id,
                file.name,
                revision=file.revision,
                cache_dir=self._hub.cache,
                endpoint=self._hub.endpoint,
                tqdm_class=bar,
            )

    # --- in the cache --------------------------------------------------------------------------

    def find(self, names: tuple[str, ...], revision: str) -> str | None:
        """The path of the first of ``names`` if all are here at ``revision``."""
        paths = [self.pointer(name, revision) for name in names]
        with storage_errors():
            is_here = all(path is not None and is_gguf(path) for path in paths)
        return str(paths[0]) if is_here else None

    def pointer(self, name: str, revision: str) -> Path | None:
        """Where ``name`` is at ``revision``, if something is there."""
        with hub_errors(), storage_errors():
            path = try_to_load_from_cache(
                self._repo_id, name, cache_dir=self._hub.cache, revision=revision
            )
        return Path(path) if isinstance(path, str) else None

    def has(self, file: HubFile) -> bool:
        """Whether ``file`` is here, as long as the Hub says it is."""
        pointer = self.pointer(file.name, file.commit)
        return pointer is not None and self.is_whole(pointer, file)

    def is_whole(self, path: Path, file: HubFile) -> bool:
        """Whether what is at ``path`` may be ``file``."""
        with storage_errors():
            return is_gguf(path) and file.size in (None, path.stat().st_size)

    def blob(self, file: HubFile) -> Path:
        """Where the content belongs."""
        return self.folder / "blobs" / file.etag

    def lock(self, file: HubFile) -> Path:
        """The lock that all Hub tools take for it."""
        return self._locks / f"{file.etag}.lock"

    def link(self, file: HubFile) -> None:
        """Give the content its name. The lock is held."""
        blob = self.blob(file)
        pointer = self.folder / "snapshots" / file.commit / file.name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)  # a link to nowhere
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # a file system without links: there, the library moves it, too
            blob.rename(pointer)

    def note_revision(self, file: HubFile) -> None:
        """Note what the revision stands for, if the cache takes notes."""
        note = self.folder / "refs" / file.revision
        draft = note.with_name(f"{note.name}.{os.getpid()}.tmp")
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(file.commit)
            draft.replace(note)
        except OSError as error:
            log.info("%s stays what it was in the cache: %s", file.revision, error)


@contextlib.contextmanager
def hub_errors() -> Iterator[None]:
    """Turn what the Hub's library raises into a :class:`SourceFailed`.

    Some of its errors are an :class:`OSError`, too: to be used within ``storage_errors``.
    """
    try:
        yield
    except HfHubHTTPError as error:
        text = " ".join(str(error).split())
        raise SourceFailed(cause_of_status(error.response.status_code), text) from error
    except (LocalEntryNotFoundError, httpx2.RequestError, httpx2.InvalidURL) as error:
        raise SourceFailed(Cause.UNREACHABLE, describe(error)) from error
    except HFValidationError as error:  # a name that no repository can have
        raise SourceFailed(Cause.MISSING, str(error)) from error
    except ValueError as error:  # a file that is too large for this library
        raise SourceFailed(Cause.REJECTED, str(error)) from error


def _fetch(
    job: HubJob, repo: Repository, file: HubFile, report: Report, long_wait_s: float
) -> None:
    """Fetch one file under the lock, unless somebody else just did."""
    blob, lock = repo.blob(file), repo.lock(file)
    issue = AgentIssue(hugging_face_cannot_acquire_lock=HubLock(str(lock), ModelPath(job.name)))
    with storage_errors():
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with held(lock, report_wait(report, issue), long_wait_s=long_wait_s):
            _discard_broken(repo, file)
            if not blob.exists():
                partial = Partial(blob.with_name(f"{file.etag}.incomplete"), is_one_content=True)
                with progress_reported(report, file.name) as on_progress:
                    receive(_source(repo, file), partial, on_progress)
                partial.publish(blob)
            repo.link(file)


def _discard_broken(repo: Repository, file: HubFile) -> None:
    """Delete what has the name of ``file`` and cannot be it. The lock is held."""
    blob = repo.blob(file)
    for path in (repo.pointer(file.name, file.commit), blob):
        if path is not None and path.exists() and not repo.is_whole(path, file):
            path.unlink()
            blob.unlink(missing_ok=True)
            raise SourceFailed(Cause.CORRUPTED, f"{path} was not {file.name}; it is deleted")


def _source(repo: Repository, file: HubFile) -> Source:
    """The file at its commit. The token is not sent on where the Hub redirects to a CDN."""
    return Source(
        url=repo.url(file.name, file.commit),
        headers=build_hf_headers(),
        total=file.size,
        sha256=file.etag if _SHA256.fullmatch(file.etag) else None,
    )


def _fetch_by_library(repo: Repository, file: HubFile, report: Report) -> None:
    """Fetch one file in the library's own way, which may be Xet's and starts over each time."""

    class Bar(tqdm):
        """What the library draws its progress on; nobody sees it."""

        def __init__(self, *args: Any, **options: Any) -> None:
            options |= {"disable": False, "file": nowhere}
            super().__init__(*args, **options)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            on_progress(int(self.n), file.size)
            return shown

        def update_transfer(self, n: float) -> None:
            """Bytes on the wire, which are fewer than what they become."""

    with open(os.devnull, "w") as nowhere, progress_reported(report, file.name) as on_progress:
        on_progress(0, file.size)
        repo.download(file, Bar)
