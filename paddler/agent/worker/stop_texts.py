"""Texts that end an answer where they appear, however tokens cut them."""

from collections.abc import Sequence


class StopTexts:
    """Looks for the first of ``texts`` in an answer's content.

    What may still become one is held back, and nothing else. Fed piece by piece; pieces
    come out whole, but for the one that a stop text begins in.
    """

    __slots__ = ("_held", "_texts", "has_stopped")

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(text for text in texts if text)
        self._held = ""
        self.has_stopped = False

    def feed(self, text: str) -> str:
        """What of the content so far is certain to be none of a stop text, and not told yet."""
        if self.has_stopped:
            return ""
        self._held += text
        at = min(
            (at for stop in self._texts if (at := self._held.find(stop)) >= 0),
            default=None,
        )
        if at is not None:
            self.has_stopped = True
            told, self._held = self._held[:at], ""
            return told
        keep = max((self._begun(stop) for stop in self._texts), default=0)
        end = len(self._held) - keep
        told, self._held = self._held[:end], self._held[end:]
        return told

    def finish(self) -> str:
        """What was held for a stop text that never came."""
        told, self._held = self._held, ""
        return told

    def _begun(self, stop: str) -> int:
        """How many characters at the end may be the beginning of ``stop``."""
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if self._held.endswith(stop[:length]):
                return length
        return 0
