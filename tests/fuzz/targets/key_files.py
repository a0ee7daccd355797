"""Files of keys.

Invariants: a file is one of keys, or refused with ``ConfigError``; each key that was accepted is
found, under its name; no error says what a line holds; whoever sends the first key of the file is
known to whoever reads it.
"""

import functools
import os

from paddler.errors import ConfigError
from paddler.keys import Keys, read_key

SEEDS = (
    b"# product teams\nsearch   8f0c8f0c8f0c8f0c\nsupport  51d251d251d251d2\n",
    b"0123456789abcdef\r\n\r\n\tname 0123456789abcdeg",
    b"short\n",
    b"a b c\n",
    b"\xff\n",
    b"",
    b"0123456789abcdef\n0123456789abcdef\n",
    "näme 0123456789abcdef\u2028#x 0123456789abcdef0".encode(),
)
DICTIONARY = (
    b"0123456789abcdef",
    b"fedcba9876543210",
    b"\n",
    b"\r",
    b" ",
    b"#",
    b"\x0c",
    b"\x1c",
    "\u2028".encode(),
    "\u00a0".encode(),
    b"\x85",
)


@functools.cache
def memory_file() -> int:
    """A file that is nowhere on a disk; whoever asks for it shares it."""
    return os.memfd_create("keys")


def check(data: bytes) -> None:
    """The invariants for ``data`` as a file's content."""
    fd = memory_file()
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    path = f"/proc/self/fd/{fd}"
    try:
        keys = Keys(path, flag="--keys")
    except ConfigError as error:
        for word in data.decode(errors="replace").split():
            assert len(word) < 16 or word not in str(error).replace(path, "")
        return
    found = 0
    for line in data.decode().splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            found += 1
            owner = keys.owner(words[-1])
            assert owner is not None
            assert len(words) == 1 or owner == words[0]
            assert keys.owner(words[-1] + "x") is None or words[-1] + "x" in data.decode()
    assert len(keys) == found
    assert keys.owner("") is None
    assert keys.owner(read_key(path, flag="--key")) is not None
