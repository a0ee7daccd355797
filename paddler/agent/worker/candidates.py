"""The tokens that may be drawn, in the form that llama.cpp's samplers work on."""

import ctypes
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp

from paddler._fastpath import likeliest

Ids = npt.NDArray[np.int32]


class SamplingFailed(Exception):
    """No token can follow, or the grammar does not compile; the message says which."""


class Candidates:
    """Room for a candidate for each token of the vocabulary, filled anew for every draw."""

    __slots__ = ("_all", "_array", "_entries", "_pointer")

    def __init__(self, vocabulary_size: int) -> None:
        entry = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._entries = np.zeros(vocabulary_size, entry)
        self._all: Ids = np.arange(vocabulary_size, dtype=np.int32)
        self._array = llama_cpp.llama_token_data_array(
            data=self._entries.ctypes.data_as(llama_cpp.llama_token_data_p),
            size=vocabulary_size,
            selected=-1,
            sorted=False,
        )
        self._pointer: Any = ctypes.pointer(self._array)

    def fill(self, logits: npt.NDArray[np.float32], ids: Ids | None = None) -> None:
        """Take these tokens, or all, with their logits; ``logits`` has those of all tokens."""
        ids = self._all if ids is None else ids
        entries = self._entries[: len(ids)]
        entries["id"] = ids
        entries["logit"] = logits if ids is self._all else logits[ids]
        self._array.size = len(ids)
        self._array.selected = -1
        self._array.sorted = False

    def fill_likeliest(self, logits: npt.NDArray[np.float32], most: int) -> None:
        """Take the ``most`` likeliest tokens, in order."""
        self._array.size = likeliest(logits.data, most, self._entries.data)
        self._array.selected = -1
        self._array.sorted = True

    def apply(self, sampler: Any) -> None:
        """Let a sampler mask, sort or select."""
        llama_cpp.llama_sampler_apply(sampler, self._pointer)

    @property
    def possible(self) -> npt.NDArray[np.bool_]:
        """Which of those that were filled in are not masked, as long as nothing was sorted."""
        return ~np.isneginf(self._entries["logit"][: self._array.size])

    @property
    def selected(self) -> int:
        """The token that the last sampler of a chain picked; :class:`SamplingFailed` for none."""
        index = self._array.selected
        if not 0 <= index < self._array.size or self._entries["logit"][index] == -math.inf:
            raise SamplingFailed("all token candidates were eliminated during sampling")
        return int(self._entries["id"][index])
