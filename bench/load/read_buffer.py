"""One buffer that every connection reads into: what is in it is used up before the next read."""

from typing import Final

READ_BYTES: Final = 262_144
BUFFER: Final = bytearray(READ_BYTES)
VIEW: Final = memoryview(BUFFER)
