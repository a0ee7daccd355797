"""Files of keys: who may call a service, told by a secret that the caller sends.

A line holds a key, or a name and a key; the name is what logs say of whoever used it:

    # product teams
    search   8f0c…
    support  51d2…

Keys are kept as SHA-256 digests, so that no dump of the process shows them, and are compared
in a time that tells nothing of them.
"""

import hashlib
import hmac
import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from paddler.errors import ConfigError

MIN_KEY_CHARACTERS: Final = 16
MAX_FILE_BYTES: Final = 1024 * 1024


class Keys:
    """The keys of one file. ``flag`` is where its path was given."""

    def __init__(self, path: str, *, flag: str) -> None:
        """:class:`ConfigError` if the file cannot be read, or is no file of keys."""
        self._path = path
        self._flag = flag
        self._names = self._read()

    def __len__(self) -> int:
        return len(self._names)

    def reload(self) -> None:
        """Read the file again; :class:`ConfigError` leaves the keys as they were."""
        self._names = self._read()

    def owner(self, key: str) -> str | None:
        """The name that a key is listed under; ``None``: it is not listed."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for listed, name in self._names.items():  # all of them, whichever it is
            if hmac.compare_digest(listed, digest):
                found = name
        return found

    @property
    def is_open_to_others(self) -> bool:
        """Whether other users of the machine may read the file."""
        try:
            return bool(os.stat(self._path).st_mode & (stat.S_IRGRP | stat.S_IROTH))
        except OSError:
            return False

    def _read(self) -> dict[bytes, str]:
        return {
            hashlib.sha256(line.key.encode()).digest(): line.name or f"key-{line.number}"
            for line in _lines(self._path, self._flag)
        }


def read_key(path: str, *, flag: str) -> str:
    """The first key of a file, for whoever has to send one; :class:`ConfigError`."""
    return _lines(path, flag)[0].key


class _Line(NamedTuple):
    number: int
    name: str | None
    key: str


def _lines(path: str, flag: str) -> list[_Line]:
    """The keys of a file, at least one, as they are listed; :class:`ConfigError`."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise _wrong(path, flag, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _wrong(path, flag, "is not UTF-8 text") from error
    if len(content) > MAX_FILE_BYTES:
        raise _wrong(path, flag, f"is larger than {MAX_FILE_BYTES} bytes")
    lines: list[_Line] = []
    seen: set[str] = set()
    for number, written in enumerate(text.splitlines(), 1):
        words = written.split()
        if not words or words[0].startswith("#"):
            continue
        if (what := _fault(words, number)) is not None:
            raise _wrong(path, flag, what)
        *name, key = words
        if key in seen:
            raise _wrong(path, flag, f"has the key of line {number} twice")
        seen.add(key)
        lines.append(_Line(number, name[0] if name else None, key))
    if not lines:
        raise _wrong(path, flag, "lists no key: write one a line, or a name and a key")
    return lines


def _fault(words: list[str], number: int) -> str | None:
    """What is wrong with a line, without what is in it."""
    if len(words) > 2:
        return f"has {len(words)} words in line {number}: expected NAME KEY, or KEY"
    key = words[-1]
    if len(key) < MIN_KEY_CHARACTERS:
        return (
            f"has a key of {len(key)} characters in line {number}: "
            f"at least {MIN_KEY_CHARACTERS} are expected"
        )
    if not (key.isascii() and key.isprintable()):
        return f"has a key in line {number} that is not printable ASCII"
    return None


def _wrong(path: str, flag: str, what: str) -> ConfigError:
    return ConfigError(f"{flag}: {path} {what}")
