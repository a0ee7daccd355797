"""Random ids that are safe in URLs."""

import secrets
from typing import Final

ID_CHARACTERS: Final = 21
ID_BYTES: Final = 16  # enough of them, at six bits a character


def new_id() -> str:
    """A fresh id: 21 characters of ``A-Za-z0-9_-``, 126 random bits."""
    return secrets.token_urlsafe(ID_BYTES)[:ID_CHARACTERS]
