import numpy as np
import pytest

from paddler.agent.worker.candidates import Candidates, SamplingFailed
from paddler.agent.worker.gbnf.writing import Gbnf
from paddler.agent.worker.grammar_sampler import FirstBytes, GrammarSampler
from tests.agent.worker.accepting import Acceptor
from tests.tiny_gguf import EOS, FIRST_BYTE


def allowed(sampler: GrammarSampler, size: int, first_bytes: FirstBytes | None) -> set[int]:
    """The tokens that may come next, asked for with or without a look at first bytes."""
    ids = None if first_bytes is None else sampler.possible(first_bytes)
    candidates = Candidates(size)
    candidates.fill(np.zeros(size, np.float32), ids)
    candidates.apply(sampler.handle)
    asked = np.arange(size) if ids is None else ids
    return set(asked[candidates.possible].tolist())


@pytest.mark.parametrize("vocabulary", ["byte_grammars", "smollm2_grammars"])
@pytest.mark.parametrize(
    "text",
    [
        'root ::= "<tool_call>" "x"',
        'root ::= [a-f]+ "."',
        "root ::= [^a]*",
        'root ::= "é😀" [ä-ü] "\U00010348"',
        'root ::= "" | "x"',
        'root ::= ("cat" | "car" | "dog")+',
        "root ::= <[5]> | <[6]> <[2]>",
    ],
)
def test_look_at_first_bytes_changes_nothing(
    request: pytest.FixtureRequest, vocabulary: str, text: str
) -> None:
    acceptor: Acceptor = request.getfixturevalue(vocabulary)
    size = acceptor.model.vocabulary_size
    random = np.random.default_rng(1)
    for _ in range(3):
        sampler = GrammarSampler(acceptor.model.vocab, Gbnf(text, "root"))
        for _ in range(4):
            tokens = allowed(sampler, size, None)
            assert allowed(sampler, size, acceptor.first_bytes) == tokens
            going_on = sorted(token for token in tokens if not acceptor.model.is_end(token))
            if not going_on:
                break
            sampler.accept(int(random.choice(going_on)))
        sampler.close()


def test_keyword_leaves_few_tokens_to_ask_about(smollm2_grammars: Acceptor) -> None:
    keyword = GrammarSampler(smollm2_grammars.model.vocab, Gbnf('root ::= "<tool>"', "root"))
    ids = keyword.possible(smollm2_grammars.first_bytes)
    assert ids is not None
    assert len(ids) < 1000
    text = GrammarSampler(smollm2_grammars.model.vocab, Gbnf("root ::= [^x]*", "root"))
    assert text.possible(smollm2_grammars.first_bytes) is None
    for sampler in (keyword, text):
        sampler.close()


def test_grammar_that_is_done_allows_an_end_only(byte_grammars: Acceptor) -> None:
    sampler = GrammarSampler(byte_grammars.model.vocab, Gbnf('root ::= "a"', "root"))
    assert sampler.allows(FIRST_BYTE + ord("a"))
    assert not sampler.allows(EOS)
    sampler.accept(FIRST_BYTE + ord("a"))
    size = byte_grammars.model.vocabulary_size
    assert allowed(sampler, size, byte_grammars.first_bytes) == {EOS}
    for _ in range(2):
        sampler.close()


def test_grammar_with_a_nul_is_refused(byte_grammars: Acceptor) -> None:
    for grammar in (Gbnf('root ::= "a"\0', "root"), Gbnf('root ::= "a"', "root\0")):
        with pytest.raises(SamplingFailed, match="NUL"):
            GrammarSampler(byte_grammars.model.vocab, grammar)
