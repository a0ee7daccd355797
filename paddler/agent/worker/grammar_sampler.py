"""A grammar at work: which tokens may come next.

To ask llama.cpp about all tokens of a vocabulary takes milliseconds, while all streams
wait. Where a grammar has one way to go on, as within a keyword, nearly all tokens differ in
their first byte from what may come. So the grammar is asked about single bytes first, and
then about the tokens that begin with one of those that it allows.
"""

import ctypes
import math
from typing import Any

import numpy as np
from llama_cpp import llama_cpp

from paddler.agent.worker.candidates import Candidates, Ids, SamplingFailed
from paddler.agent.worker.gbnf.checking import UnsafeGrammar, check_grammar
from paddler.agent.worker.gbnf.writing import Gbnf


class FirstBytes:
    """The tokens of a vocabulary by the first byte of their texts."""

    __slots__ = ("_by_byte", "_count", "_ends", "_probe", "_single_bytes", "_singles", "_unprobed")

    def __init__(self, vocab: Any) -> None:
        self._count = llama_cpp.llama_vocab_n_tokens(vocab)
        by_byte: list[list[int]] = [[] for _ in range(256)]
        singles: dict[int, int] = {}
        ends = []
        size = 1024
        buffer = ctypes.create_string_buffer(size)
        for token in range(self._count):
            if llama_cpp.llama_vocab_is_eog(vocab, token):
                ends.append(token)
                continue
            length = llama_cpp.llama_token_to_piece(vocab, token, buffer, size, 0, True)
            if length < 0:
                size = -length
                buffer = ctypes.create_string_buffer(size)
                length = llama_cpp.llama_token_to_piece(vocab, token, buffer, size, 0, True)
            if length > 0:  # No grammar allows a token without text.
                byte = buffer.raw[0]
                by_byte[byte].append(token)
                if length == 1:
                    singles[byte] = token
        self._by_byte: list[Ids] = [np.array(tokens, np.int32) for tokens in by_byte]
        self._ends: Ids = np.array(ends, np.int32)
        self._single_bytes = np.array(list(singles), np.intp)
        self._singles: Ids = np.array(list(singles.values()), np.int32)
        self._unprobed = [byte for byte in range(256) if byte not in singles]
        self._probe = Candidates(max(1, len(singles)))

    def possible(self, sampler: Any) -> Ids | None:
        """The tokens of which some may come next, by a grammar's native sampler; ``None``: all.

        No other token may: what it begins with could not come either.
        """
        self._probe.fill(np.zeros(self._count, np.float32), self._singles)
        self._probe.apply(sampler)
        allowed = self._single_bytes[self._probe.possible]
        tokens = [self._by_byte[byte] for byte in (*allowed, *self._unprobed)]
        if sum(map(len, tokens)) > self._count // 2:
            return None
        return np.concatenate((*tokens, self._ends))


class GrammarSampler:
    """A grammar at work on one answer. ``close`` frees it, once however often it is called."""

    __slots__ = ("_names_tokens", "_sampler")

    def __init__(self, vocab: Any, grammar: Gbnf) -> None:
        self._sampler: Any = None
        try:
            self._names_tokens = check_grammar(
                grammar, vocabulary_size=llama_cpp.llama_vocab_n_tokens(vocab)
            )
        except UnsafeGrammar as error:
            raise SamplingFailed(str(error)) from error
        self._sampler = llama_cpp.llama_sampler_init_grammar(
            vocab, grammar.text.encode("utf-8", "replace"), grammar.root.encode("utf-8", "replace")
        )
        if not self._sampler:
            raise SamplingFailed(f"the grammar does not compile, or has no rule {grammar.root!r}")

    @property
    def handle(self) -> Any:
        """The native sampler."""
        return self._sampler

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""
        entry = llama_cpp.llama_token_data(id=token, logit=1.0, p=0.0)
        array = llama_cpp.llama_token_data_array(
            data=ctypes.pointer(entry), size=1, selected=-1, sorted=False
        )
        pointer: Any = ctypes.pointer(array)
        llama_cpp.llama_sampler_apply(self._sampler, pointer)
        return bool(entry.logit != -math.inf)

    def possible(self, first_bytes: FirstBytes) -> Ids | None:
        """The only tokens that are worth asking about; ``None``: all are."""
        # A grammar may allow a token by its id, whatever its text.
        return None if self._names_tokens else first_bytes.possible(self._sampler)

    def accept(self, token: int) -> None:
        """This token, which is allowed, comes next."""
        llama_cpp.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        """Free the grammar."""
        sampler, self._sampler = self._sampler, None
        if sampler:
            llama_cpp.llama_sampler_free(sampler)
