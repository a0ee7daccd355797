"""How models are named on the command line."""

import re
from pathlib import PurePosixPath
from typing import Any, Final

from paddler.errors import ConfigError

_HUB: Final = re.compile(
    r"hf:(?P<repo>[^/@\s]+/[^/@\s]+)/(?P<file>[^@\s]+?)(?:@(?P<revision>\S+))?"
)
_URL: Final = re.compile(r"https?://\S+", re.IGNORECASE)

FORMS: Final = "hf:OWNER/REPO/FILE[@REVISION], http(s)://…, a path on the agents, or none"


def parse_model(text: str) -> Any:
    """A model reference of the desired state; :class:`ConfigError` if ``text`` is none."""
    if text.lower() == "none":
        return "None"
    if not text.isprintable():  # nor are bytes that are no UTF-8, as the shell passes them on
        raise ConfigError(f"{text!r}: expected printable characters")
    if text.startswith("hf:"):
        found = _HUB.fullmatch(text)
        if found is None:
            raise ConfigError(
                f"{text!r}: expected hf:OWNER/REPO/FILE or hf:OWNER/REPO/FILE@REVISION"
            )
        return {
            "HuggingFace": {
                "repo_id": found["repo"],
                "filename": found["file"],
                "revision": found["revision"] or "main",
            }
        }
    if _URL.fullmatch(text):
        return {"Url": {"url": text}}
    if not text.strip() or "://" in text:
        raise ConfigError(f"{text!r}: expected {FORMS}")
    if not PurePosixPath(text).is_absolute():
        raise ConfigError(
            f"{text!r}: a path on the agents must be absolute, since each agent has a "
            "working directory of its own"
        )
    return {"LocalToAgent": text}


def print_model(reference: Any) -> str:
    """The name that :func:`parse_model` reads as ``reference``."""
    match reference:
        case "None":
            return "none"
        case {"HuggingFace": {"repo_id": repo, "filename": file, "revision": revision}}:
            return f"hf:{repo}/{file}" + ("" if revision == "main" else f"@{revision}")
        case {"Url": {"url": str() as url}}:
            return url
        case {"LocalToAgent": str() as path}:
            return path
        case _:
            return str(reference)
