"""Random ids that are safe in URLs."""

import secrets
from typing import Final

ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
ID_CHARACTERS: Final = 21


def new_id() -> str:
    """A fresh id: 21 characters of ``A-Za-z0-9_-``, 126 random bits."""
    return "".join(ALPHABET[byte & 63] for byte in secrets.token_bytes(ID_CHARACTERS))
