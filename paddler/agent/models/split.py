"""Models in several files: ``name-00001-of-00003.gguf`` and so on."""

import re
from typing import Final

_PART: Final = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


def part_names(filename: str) -> tuple[str, ...]:
    """The names of all files that make up the model of ``filename``, the first one first.

    A part may be named by any of its fellows; most models are one file.
    """
    match = _PART.fullmatch(filename)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return (filename,)
    count = int(match["count"])
    return tuple(f"{match['stem']}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1))
