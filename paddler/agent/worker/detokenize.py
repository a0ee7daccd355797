"""From the bytes of tokens to text."""

import codecs


class Detokenizer:
    """Joins the bytes of one stream's tokens into whole characters.

    A token may end inside a character: its first bytes are held until the rest has come.
    Bytes that are no UTF-8 become U+FFFD.
    """

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, piece: bytes) -> str:
        """The text that ``piece`` completes; empty when all of it is held."""
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """What is still held, as U+FFFD. The end of the stream."""
        return self._decoder.decode(b"", final=True)
