"""KV cells outside the KV cache: of idle slots, and of answers on their way to another place.

While a single stream is decoded on a CPU, ggml splits the cache among its threads by place:
with the cells of idle slots beside them, all those of the stream lie with one thread, and the
others wait. (SmolLM2-135M, 1,500 tokens in each of four slots, two threads: 47 ms a token,
30 ms without the idle ones; 1,500 cells are out in 11 ms and in again in 6.)
"""

import ctypes
from typing import Any, Self

import llama_cpp
import numpy as np
from numpy.typing import NDArray


class SwappedCells:
    """A copy of the cells that a sequence had, in the memory of the host."""

    __slots__ = ("_state",)

    def __init__(self, state: NDArray[np.uint8]) -> None:
        self._state = state

    @classmethod
    def of(cls, context: Any, sequence: int) -> Self | None:
        """Copy them; ``None``: llama.cpp cannot, or there is no memory for it."""
        seq_id = llama_cpp.llama_seq_id(sequence)
        size = llama_cpp.llama_state_seq_get_size(context, seq_id)
        try:
            state = np.empty(size, np.uint8)
        except MemoryError:
            return None
        written = llama_cpp.llama_state_seq_get_data(context, _pointer(state), size, seq_id)
        return cls(state) if size and written == size else None

    def bring_back(self, context: Any, sequence: int) -> bool:
        """Have an empty sequence hold them; ``False``: there is no room, and it stays empty."""
        size = self._state.size
        seq_id = llama_cpp.llama_seq_id(sequence)
        read = llama_cpp.llama_state_seq_set_data(context, _pointer(self._state), size, seq_id)
        return bool(read == size)


def _pointer(state: NDArray[np.uint8]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
