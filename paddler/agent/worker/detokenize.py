"""From the bytes of tokens to text that may be sent."""

import codecs

import msgspec


class Detokenizer:
    """Joins the bytes of one stream's tokens into whole characters.

    A token may end inside a character: its first bytes are held until the rest has come.
    Bytes that are no UTF-8 become U+FFFD. Text goes out as the contents of a JSON string,
    escaped, without quotes: escaped once here, copied everywhere after.
    """

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, piece: bytes) -> bytes:
        """The text that ``piece`` completes; empty when all of it is held."""
        return _escape(self._decoder.decode(piece))

    def flush(self) -> bytes:
        """What is still held, as U+FFFD. The end of the stream."""
        return _escape(self._decoder.decode(b"", final=True))


def _escape(text: str) -> bytes:
    return msgspec.json.encode(text)[1:-1]
