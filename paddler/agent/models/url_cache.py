"""Where files from addresses are kept: ``<root>/downloaded-models/<SHA-256 of the address>``."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_FOLDER: Final = "downloaded-models"


def cache_root(environ: Mapping[str, str]) -> Path | None:
    """The cache's root, ``None`` if the environment names none.

    A variable that is set but empty counts: the path is then relative to where we run.
    """
    if (root := environ.get("PADDLER_CACHE_DIR")) is not None:
        return Path(root)
    if (caches := environ.get("XDG_CACHE_HOME")) is not None:
        return Path(caches, "paddler")
    if (home := environ.get("HOME")) is not None:
        return Path(home, ".cache", "paddler")
    return None


class Entry:
    """The files of one address. Only ``path`` is ever loaded, and it is whole."""

    __slots__ = ("lock", "partial", "parts", "path")

    def __init__(self, root: Path, url: str) -> None:
        digest = hashlib.sha256(url.encode()).hexdigest()
        self.path = root / _FOLDER / digest
        self.partial = self.path.with_name(f"{digest}.partial")
        self.lock = self.path.with_name(f"{digest}.lock")
        self.parts = self.path.with_name(f"{digest}.parts")  # links with names, to other entries

    def link_parts(self, names: list[str], entries: list["Entry"]) -> Path:
        """A folder in which a model's parts have the names that llama.cpp looks for; the first."""
        self.parts.mkdir(exist_ok=True)
        for name, entry in zip(names, entries, strict=True):
            link = self.parts / name
            target = os.path.join(os.pardir, entry.path.name)
            if not (link.is_symlink() and os.readlink(link) == target):
                link.unlink(missing_ok=True)
                link.symlink_to(target)
        return self.parts / names[0]
