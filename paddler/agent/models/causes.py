"""Why a model cannot be had, and the issue that tells operators."""

import contextlib
import errno
from collections.abc import Iterator
from enum import Enum
from typing import Final, assert_never

import msgspec

from paddler.errors import PaddlerError
from paddler.messages.agents import AgentIssue
from paddler.messages.fetch import FetchJob, HubJob, UrlJob


class Cause(Enum):
    """Everything that may go wrong. A value is what the issue is called on the wire."""

    DENIED = "DownloadServerDeniedAccess"  # 401, 403
    MISSING = "ModelDoesNotExistAtUrl"  # 404
    REJECTED = "DownloadServerRejectedRequest"  # any other 4xx
    ERRORED = "DownloadServerErrored"  # 5xx, and what makes no sense
    UNREACHABLE = "DownloadServerIsUnreachable"  # no answer
    INTERRUPTED = "DownloadInterrupted"  # the answer broke off
    MALFORMED = "DownloadUrlIsMalformed"
    NOT_WRITABLE = "CacheDirectoryIsNotWritable"
    FULL = "CacheStorageIsFull"
    CORRUPTED = "ModelCacheIsCorrupted"  # what lies in the cache cannot be used
    LOCKED = "CacheCannotAcquireLock"  # another process fetches it
    NO_MODEL = "ModelCannotBeLoaded"  # what comes is no GGUF file


_HUB_VARIANTS: Final = {
    Cause.DENIED: "HuggingFacePermissions",
    Cause.MISSING: "HuggingFaceModelDoesNotExist",
}

# EFBIG: the file system, or a limit of the process, allows no larger file.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_WRITABLE: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.EROFS),
        # A part of the directory's path is a file, or cannot be made, so nothing can be there.
        *(errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    }
)


class SourceFailed(PaddlerError):
    """A fetch cannot go on, for ``cause``; the message is for the log."""

    code = "model_source_failed"

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class ModelUnavailable(PaddlerError):
    """The model's file cannot be had now; ``issue`` tells operators why."""

    code = "model_unavailable"

    def __init__(self, message: str, issue: AgentIssue) -> None:
        super().__init__(message)
        self.issue = issue


def issue_of(cause: Cause, job: FetchJob) -> AgentIssue:
    """What operators see: the Hub has issues of its own for two of the causes."""
    match job:
        case HubJob():
            variant = _HUB_VARIANTS.get(cause, cause.value)
        case UrlJob():
            variant = cause.value
        case _:
            assert_never(job)
    return msgspec.convert({variant: {"model_path": job.name}}, AgentIssue)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what the system says about the cache's files into a :class:`SourceFailed`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            cause = Cause.FULL
        elif error.errno in _NOT_WRITABLE:
            cause = Cause.NOT_WRITABLE
        else:
            cause = Cause.CORRUPTED
        where = f"{error.filename}: " if error.filename is not None else ""
        raise SourceFailed(cause, f"{where}{error.strerror or error}") from error
