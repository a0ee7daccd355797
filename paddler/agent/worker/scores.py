"""Log probabilities of tokens, matched with the text that they became.

A token may say nothing yet (a character in parts), say a marker that is not shown, or be
told later than it was drawn: what is told goes out with the tokens that it is made of.
"""

from collections import deque

from paddler.messages.link import TokenScore


class Scores:
    """Follows one answer's content from its tokens to what is told of it."""

    __slots__ = ("_fed", "_fed_count", "_placed")

    def __init__(self) -> None:
        self._fed: deque[tuple[int, bool, TokenScore]] = deque()  # number, says anything
        self._fed_count = 0
        self._placed: deque[_Placed] = deque()

    def feed(self, text: str, score: TokenScore) -> None:
        """The next token, and the text that it completed."""
        self._fed.append((self._fed_count, bool(text), score))
        self._fed_count += 1

    def place(self, token: int, chars: int) -> None:
        """So many characters of token number ``token`` are content, behind what was placed."""
        # Tokens before it that said nothing began a character that it completes; those that
        # said something were not shown.
        while self._fed and self._fed[0][0] < token:
            _, says_text, score = self._fed.popleft()
            if not says_text:
                self._placed.append(_Placed(0, score))
        score_of_token = None
        if self._fed and self._fed[0][0] == token:
            _, _, score_of_token = self._fed.popleft()
        self._placed.append(_Placed(chars, score_of_token))

    def pass_over(self, token: int) -> None:
        """Token number ``token`` and those before it are no content."""
        while self._fed and self._fed[0][0] <= token:
            self._fed.popleft()

    def take(self, chars: int) -> list[TokenScore]:
        """The scores of the next ``chars`` characters; a token cut in two counts as told."""
        scores = []
        while self._placed and (chars or not self._placed[0].chars):
            placed = self._placed[0]
            if placed.score is not None:
                scores.append(placed.score)
                placed.score = None
            told = min(placed.chars, chars)
            placed.chars -= told
            chars -= told
            if placed.chars:
                break
            self._placed.popleft()
        return scores


class _Placed:
    """Content that is not told yet. A token may be placed in parts; the first has its score."""

    __slots__ = ("chars", "score")

    def __init__(self, chars: int, score: TokenScore | None) -> None:
        self.chars = chars
        self.score = score
