"""What operators see of each cause, and what the system's errors count as."""

import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.agent.models.causes import Cause, SourceFailed, issue_of, storage_errors
from paddler.messages.fetch import HubJob, UrlJob

URL = UrlJob("https://models.example/m.gguf?token=1")
HUB = HubJob(repo_id="org/repo", revision="main", filename="q8/m.gguf")

PLAIN_ISSUES = {
    Cause.REJECTED: "DownloadServerRejectedRequest",
    Cause.ERRORED: "DownloadServerErrored",
    Cause.UNREACHABLE: "DownloadServerIsUnreachable",
    Cause.INTERRUPTED: "DownloadInterrupted",
    Cause.MALFORMED: "DownloadUrlIsMalformed",
    Cause.NOT_WRITABLE: "CacheDirectoryIsNotWritable",
    Cause.FULL: "CacheStorageIsFull",
    Cause.CORRUPTED: "ModelCacheIsCorrupted",
    Cause.LOCKED: "CacheCannotAcquireLock",
    Cause.NO_MODEL: "ModelCannotBeLoaded",
}
URL_ISSUES = PLAIN_ISSUES | {
    Cause.DENIED: "DownloadServerDeniedAccess",
    Cause.MISSING: "ModelDoesNotExistAtUrl",
}
HUB_ISSUES = PLAIN_ISSUES | {
    Cause.DENIED: "HuggingFacePermissions",
    Cause.MISSING: "HuggingFaceModelDoesNotExist",
}


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_is_an_issue_that_names_what_was_asked_for(cause: Cause) -> None:
    def issue(job: UrlJob | HubJob) -> Any:
        return msgspec.to_builtins(issue_of(cause, job))

    assert issue(URL) == {URL_ISSUES[cause]: {"model_path": URL.url}}
    assert issue(HUB) == {HUB_ISSUES[cause]: {"model_path": "org/repo/main/q8/m.gguf"}}


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOSPC, Cause.FULL),
        (errno.EDQUOT, Cause.FULL),
        (errno.EFBIG, Cause.FULL),
        (errno.EACCES, Cause.NOT_WRITABLE),
        (errno.EPERM, Cause.NOT_WRITABLE),
        (errno.EROFS, Cause.NOT_WRITABLE),
        (errno.ENAMETOOLONG, Cause.NOT_WRITABLE),
        (errno.ELOOP, Cause.NOT_WRITABLE),
        (errno.EIO, Cause.CORRUPTED),
        (errno.EISDIR, Cause.CORRUPTED),
    ],
)
def test_the_systems_errors_are_told_apart(number: int, cause: Cause) -> None:
    with pytest.raises(SourceFailed) as caught, storage_errors():
        raise OSError(number, os.strerror(number), "/cache/file")
    assert caught.value.cause is cause
    assert str(caught.value) == f"/cache/file: {os.strerror(number)}"


def test_a_path_below_a_file_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(SourceFailed) as caught, storage_errors():
            (tmp_path / folder).mkdir(exist_ok=True)
        assert caught.value.cause is Cause.NOT_WRITABLE


def test_a_directory_of_somebody_else_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o555)
    is_root = os.geteuid() == 0
    if is_root:  # It may write everywhere; nobody may not.
        os.seteuid(65534)
    try:
        with pytest.raises(SourceFailed) as caught, storage_errors():
            (tmp_path / "theirs" / "mine").touch()
    finally:
        if is_root:
            os.seteuid(0)
    assert caught.value.cause is Cause.NOT_WRITABLE
