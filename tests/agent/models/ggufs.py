"""Contents that begin as GGUF files do, and say nothing."""

import random


def gguf_bytes(size: int, seed: int = 1) -> bytes:
    """``size`` bytes."""
    return b"GGUF" + random.Random(seed).randbytes(size - 4)
