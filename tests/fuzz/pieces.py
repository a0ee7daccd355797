"""Ways in which the same bytes may arrive.

Cuts are drawn from the bytes themselves, so that an input that broke something breaks it
again, and corpora hold nothing but what a peer would send.
"""

import itertools
import random
import zlib
from collections.abc import Sequence
from typing import AnyStr

LONGEST_BYTE_BY_BYTE = 600


def drawn_from(data: bytes) -> random.Random:
    """The same random numbers for the same bytes."""
    return random.Random(zlib.crc32(data))


def all_at_once(data: bytes) -> list[bytes]:
    """One piece."""
    return [data]


def cut(data: bytes) -> list[bytes]:
    """Up to five pieces."""
    return cut_at(data, drawn_from(data))


def cut_text(text: str) -> list[str]:
    """Up to five pieces."""
    return cut_at(text, drawn_from(text.encode("utf-8", "surrogatepass")))


def cut_at(data: AnyStr, draw: random.Random) -> list[AnyStr]:
    """Up to five pieces, by these random numbers."""
    at = sorted(draw.randint(0, len(data)) for _ in range(draw.randint(1, 4)))
    return [data[start:end] for start, end in itertools.pairwise([0, *at, len(data)])]


def byte_by_byte(data: bytes) -> Sequence[bytes]:
    """Single bytes; of long data, the first ones."""
    head, rest = data[:LONGEST_BYTE_BY_BYTE], data[LONGEST_BYTE_BY_BYTE:]
    return [*(head[at : at + 1] for at in range(len(head))), *([rest] if rest else [])]
