"""What a grammar allows, by llama.cpp's own engine: the judge of every grammar that we write."""

import functools
from collections.abc import Callable

import numpy as np
from llama_cpp import llama_cpp

from paddler.agent.worker.candidates import Candidates
from paddler.agent.worker.engine_llama import Model
from paddler.agent.worker.gbnf.writing import Gbnf
from paddler.agent.worker.grammar_sampler import FirstBytes, GrammarSampler


class Acceptor:
    """Grammars over the vocabulary of a model. ``tokenize`` is the model's, if not given."""

    def __init__(self, model: Model, tokenize: Callable[[str], list[int]] | None = None) -> None:
        self.model = model
        self._tokenize = tokenize or (lambda text: model.tokenize(text, limit=10**6))
        self.end = next(token for token in range(model.vocabulary_size) if model.is_end(token))
        self._candidates = Candidates(model.vocabulary_size)
        self._greedy = llama_cpp.llama_sampler_init_greedy()  # as old as the process gets

    def accepts(self, grammar: Gbnf, text: str) -> bool:
        """Whether the whole of ``text``, and then an end, is allowed."""
        return self.refused(grammar, text) is None

    def refused(self, grammar: Gbnf, text: str) -> str | None:
        """What of ``text`` is not allowed: the rest from there on, or "" if it may not end."""
        sampler = GrammarSampler(self.model.vocab, grammar)
        try:
            read = b""
            for token in self._tokenize(text):
                if not sampler.allows(token):
                    return text.encode()[len(read) :].decode(errors="replace")
                sampler.accept(token)
                read += self.model.piece(token)
            return None if sampler.allows(self.end) else ""
        finally:
            sampler.close()

    def walk(self, grammar: Gbnf, seed: int, *, likely: str = "", limit: int = 400) -> str | None:
        """A random text that is allowed; ``None`` if it came to no end.

        ``likely``: tokens, as the text that they stand for, that are taken where they may be,
        as is the end.
        """
        random = np.random.default_rng(seed)
        bonus = np.zeros(self.model.vocabulary_size, np.float32)
        bonus[self._parts_of_chars] = -1000.0  # llama.cpp lets bad UTF-8 pass
        bonus[self._tokenize(likely)] = 3.0
        bonus[self.end] = 3.0
        sampler = GrammarSampler(self.model.vocab, grammar)
        try:
            text = b""
            for _ in range(limit):
                token = self._drawn(sampler, random.gumbel(size=len(bonus)) + bonus)
                if token == self.end:
                    return text.decode()
                text += self.model.piece(token)
                sampler.accept(token)
            return None
        finally:
            sampler.close()

    @functools.cached_property
    def first_bytes(self) -> FirstBytes:
        """The first bytes of the vocabulary's tokens."""
        return FirstBytes(self.model.vocab)

    @functools.cached_property
    def _parts_of_chars(self) -> list[int]:
        """Tokens that are no text alone."""
        pieces = map(self.model.piece, range(self.model.vocabulary_size))
        return [
            token
            for token, piece in enumerate(pieces)
            if "\ufffd" in piece.decode("utf-8", "replace")
        ]

    def _drawn(self, sampler: GrammarSampler, logits: np.ndarray) -> int:
        self._candidates.fill(logits.astype(np.float32))
        self._candidates.apply(sampler.handle)
        self._candidates.apply(self._greedy)
        return self._candidates.selected
