"""Prompts: words that mean little and cost about one token each."""

import random
from typing import Final

TEXT: Final = (
    "the river bridge stone water light house road green tree small bird old man young girl "
    "walk home long day night sun moon wind rain snow field horse door window table chair book "
    "story word voice hand face eye heart time year morning evening summer winter city street "
    "market bread fish salt milk fire wood iron gold silver letter paper name game song dance"
)
STOCK: Final = 16_384


class Wording:
    """Texts of a wanted number of words; two of them hardly ever begin alike."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._stock = dice.choices(TEXT.split(), k=STOCK)

    def text(self, words: int) -> str:
        """Words, drawn anew."""
        parts: list[str] = []
        while len(parts) < words:
            at = self._dice.randrange(STOCK)
            parts += self._stock[at : at + words - len(parts)]
        return " ".join(parts)
