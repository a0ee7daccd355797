"""What is wrong on agents, in words, and what operators can do about it.

The variants are those of the management service.
"""

from typing import Any, Final

from paddler.text import printable

ADVICE: Final = {
    "CacheCannotAcquireLock": "another process on this machine downloads the file: it waits",
    "CacheDirectoryIsNotWritable": "give the agent a writable PADDLER_CACHE_DIR",
    "CacheStorageIsFull": "free space on the agent's cache disk",
    "ChatTemplateDoesNotCompile": "correct the chat template, or stop overriding the model's",
    "DownloadInterrupted": "the download broke off: it goes on by itself",
    "DownloadServerDeniedAccess": "check the address and its access rights",
    "DownloadServerErrored": "the server failed: it is tried again",
    "DownloadServerIsUnreachable": "check the agent's network and proxies",
    "DownloadServerRejectedRequest": "check the address",
    "DownloadUrlIsMalformed": "correct the address",
    "HuggingFaceCannotAcquireLock": "another process on this machine downloads the file: it waits",
    "HuggingFaceModelDoesNotExist": "check repository, file and revision",
    "HuggingFacePermissions": "set HF_TOKEN on the agent to a token that may read it",
    "ModelCacheIsCorrupted": "the cached file was damaged: it is downloaded anew",
    "ModelCannotBeLoaded": "see the agent's log: the file may be damaged, of an unknown "
    "kind, or not readable, or memory too small",
    "ModelDoesNotExistAtUrl": "check the address",
    "ModelFileDoesNotExist": "put the file there on the agent's machine, or correct the path",
    "MultimodalProjectionCannotBeLoaded": "check that the projection fits the model",
    "SlotCannotStart": "fewer --slots, or a smaller context_size",
    "UnableToFindChatTemplate": "set a chat template override: the model has none",
}

# What goes away by itself: whoever waits for a model waits on.
PASSING: Final = frozenset(
    {
        "CacheCannotAcquireLock",
        "DownloadInterrupted",
        "HuggingFaceCannotAcquireLock",
        "ModelCacheIsCorrupted",
    }
)


def describe_issue(issue: dict[str, Any]) -> tuple[str, str | None]:
    """What an issue says, and the advice for it, if there is one."""
    ((variant, detail),) = issue.items()
    what = detail.get("error") or _path(detail)
    return f"{variant}: {printable(what)}", ADVICE.get(variant)


def _path(detail: dict[str, Any]) -> str:
    path = detail.get("model_path")
    return _path(path) if isinstance(path, dict) else str(path)
