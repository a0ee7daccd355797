"""The one buffer that all connections of this process read into.

A read is consumed, or copied, before the callback that brings it returns, so connections
never hold the buffer and an idle one costs no buffer at all. This asks for one event loop
per process: two loops in two threads would read over each other.
"""

from typing import Final

READ_BUFFER: Final = memoryview(bytearray(262_144))  # a socket's usual receive buffer
