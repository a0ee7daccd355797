"""Models that remember otherwise than by a plain KV cache, in a real worker."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from paddler.agent.slot_table import SlotState
from paddler.agent.worker.batch import BatchSequence
from paddler.agent.worker.engine import DecodeOutcome
from paddler.agent.worker.engine_llama import LlamaEngine, start_backend
from paddler.messages.inference import ContinueFromRawPrompt, GbnfGrammar
from paddler.messages.link import RawPromptJob, StartStream, StopStream
from paddler.messages.worker import Ready
from tests.agent.worker.frames import Answer
from tests.agent.worker.test_engine_llama import decode_all, open_model, parameters
from tests.agent.worker.test_main import GREEDY, Process
from tests.tiny_gguf import FIRST_BYTE
from tests.tiny_memories import KINDS, RECURRENT, WINDOW, write_tiny_memory

CONTEXT = 256
EVICTED = {"SamplerError": "Request evicted due to KV cache pressure"}
# Letters without end: no answer stops by itself, and all of it can be shown.
LETTERS = GbnfGrammar(grammar="root ::= [a-z] root", root="root")

# Longer than the window of the model that has one. A byte is a token.
PROMPT = "abcdefghijklmnopqrstuvwxyz0123456789"
BOS_TOKENS = 1


class Remembering(NamedTuple):
    kind: str
    process: Process

    def ask(self, prompt: str, max_tokens: int = 8) -> Answer:
        self.process.parent.send(start(1, prompt, max_tokens))
        return self.process.parent.answers(1)[1]


def start(stream_id: int, prompt: str, max_tokens: int) -> StartStream:
    request = ContinueFromRawPrompt(raw_prompt=prompt, max_tokens=max_tokens, grammar=LETTERS)
    return StartStream(stream_id=stream_id, job=RawPromptJob(request), sampling=GREEDY)


@pytest.fixture(
    scope="module",
    params=[*((kind, True) for kind in KINDS), ("lfm2", False)],
    ids=[*KINDS, "lfm2, divided"],
)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Remembering]:
    kind, kv_unified = request.param
    path = write_tiny_memory(tmp_path_factory.mktemp("model") / "tiny.gguf", kind)
    with Process(2 if kv_unified else 4) as process:
        ready = process.load(path, context_size=CONTEXT, penalty_repeat=1.0, kv_unified=kv_unified)
        assert isinstance(ready, Ready)
        assert ready.slot_context_size == CONTEXT
        yield Remembering(kind, process)


def shared(model: Remembering, tokens: int) -> int:
    """How many of the first ``tokens``, which a slot has seen and gone on from, it reuses."""
    return 0 if model.kind in RECURRENT else tokens


def test_window_is_shorter_than_the_prompt() -> None:
    assert len(PROMPT) > 2 * WINDOW


def test_prompt_that_goes_on_where_a_slot_stands_is_not_decoded_again(model: Remembering) -> None:
    cold = model.ask(PROMPT)
    model.ask(PROMPT[:20], max_tokens=1)  # The last token is sampled, and not decoded.
    warm = model.ask(PROMPT)
    assert warm.usage.prompt_tokens == BOS_TOKENS + len(PROMPT)
    assert warm.usage.cached_prompt_tokens >= BOS_TOKENS + 20
    assert warm.text == cold.text


def test_prompt_that_leaves_the_path_of_a_slot_is_answered_as_if_it_were_new(
    model: Remembering,
) -> None:
    cold = {prompt: model.ask(prompt) for prompt in (PROMPT, PROMPT[:30] + "!", "another one")}
    assert len({answer.text for answer in cold.values()}) == 3
    for prompt, answer in reversed(cold.items()):
        assert model.ask(prompt).text == answer.text


def test_repeated_prompt_tells_what_was_reused(model: Remembering) -> None:
    prompt = "This one comes twice, and nothing else begins like it."
    first, second = model.ask(prompt), model.ask(prompt)
    assert first.usage.cached_prompt_tokens <= shared(model, BOS_TOKENS)
    # The last token is always decoded, for its logits.
    assert second.usage.cached_prompt_tokens == shared(model, first.usage.prompt_tokens - 1)
    assert second.text == first.text


def test_prompt_is_answered_alike_however_full_the_cells_have_become(model: Remembering) -> None:
    cold = model.ask("after").text
    for length in range(10, 60, 10):
        model.process.parent.send(start(1, "x" * length, 60), start(2, "y" * length, 60))
        model.process.parent.answers(1, 2)
        assert model.ask("after").text == cold


def test_streams_at_once_say_what_they_say_alone(model: Remembering) -> None:
    alone = [model.ask(prompt, 20).text for prompt in ("one", "two, and more of it")]
    model.process.parent.send(start(1, "one", 20), start(2, "two, and more of it", 20))
    answers = model.process.parent.answers(1, 2)
    assert [answers[1].text, answers[2].text] == alone


def test_prompts_that_begin_alike_say_what_they_say_alone(model: Remembering) -> None:
    common = "A preamble that is common to all of them and longer than any window is: "
    prompts = [common + "one", common + "two"]
    alone = []
    for prompt in prompts:
        model.ask("something else that begins otherwise")
        model.ask("and one more for the other slot")
        alone.append(model.ask(prompt, 20))
    model.ask("something else that begins otherwise")
    model.ask("and one more for the other slot")
    model.process.parent.send(*(start(at, prompt, 20) for at, prompt in enumerate(prompts, 1)))
    together = model.process.parent.answers(1, 2)
    assert [together[1].text, together[2].text] == [answer.text for answer in alone]
    cached = max(together[at].usage.cached_prompt_tokens for at in (1, 2))
    assert cached >= shared(model, len(common))


def test_cancelled_stream_leaves_its_slot_clean(model: Remembering) -> None:
    expected = model.ask("after", 12).text
    model.process.parent.send(start(1, "cut off", 200), start(2, "goes on", 30))
    model.process.parent.receive_data()
    model.process.parent.send(StopStream(1))
    answers = model.process.parent.answers(1, 2)
    assert answers[1].reason == "cancelled"
    assert answers[2].usage.completion_tokens == 30
    assert model.ask("after", 12).text == expected
    assert {row.state for row in model.process.table.rows()} == {SlotState.IDLE}


def test_full_context_ends_the_longest_and_no_other(model: Remembering) -> None:
    model.process.parent.send(start(1, "long", CONTEXT + 10), start(2, "short", 20))
    answers = model.process.parent.answers(1, 2)
    assert answers[2].usage.completion_tokens == 20
    assert answers[1].error == EVICTED
    assert model.ask("and then", 5).usage.completion_tokens == 5


def test_window_whose_cells_were_taken_is_not_kept(tmp_path: Path) -> None:
    """llama.cpp takes cells that the last token of a sequence does not look back on."""
    start_backend()
    path = write_tiny_memory(tmp_path / "tiny.gguf", "gemma3")
    with (
        open_model(path) as opened,
        LlamaEngine(opened, parameters=parameters(), slots=2, threads=1) as engine,
    ):

        def decode(slot: int, tokens: int) -> None:
            sequence = BatchSequence(slot, [FIRST_BYTE] * tokens)
            assert set(decode_all(engine, sequence)) == {DecodeOutcome.DECODED}

        decode(1, 100)
        decode(0, 60)
        assert engine.keep(1, 0)
        decode(1, 130)  # In the cells that are free, then over the first 30 of the other.
        assert engine.keep(0, 60)
        assert engine.keep(0, 50)
        assert not engine.keep(0, 30)
        decode(0, 60)
        assert engine.keep(0, 30)  # Nobody took any.


def test_prompt_beyond_the_context_is_refused(model: Remembering) -> None:
    error = model.ask("x" * (CONTEXT + 1)).error
    assert msgspec.json.encode(error).startswith(b'{"SamplerError":"Request evicted')
