import ctypes
import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from llama_cpp import llama_cpp

from paddler.agent.worker.batch import BatchSequence, Chunk, plan_step
from paddler.agent.worker.engine import DecodeOutcome
from paddler.agent.worker.engine_llama import (
    EngineError,
    LlamaEngine,
    Model,
    device_names,
    start_backend,
)
from paddler.agent.worker.swapped_cells import SwappedCells
from paddler.messages.link import Sampling
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS, U32_MAX, InferenceParameters
from tests.tiny_gguf import BOS, FIRST_BYTE, write_tiny_gguf
from tests.tiny_memories import write_tiny_memory

GREEDY = Sampling(temperature=0.0, presence_penalty=0.0)


def parameters(**changes: object) -> InferenceParameters:
    small = {"context_size": 256, "penalty_repeat": 1.0}
    return msgspec.structs.replace(DEFAULT_INFERENCE_PARAMETERS, **small | changes)


def open_model(path: Path) -> Model:
    return Model(str(path), n_gpu_layers=0, on_progress=lambda _: True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    start_backend()
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_gguf(path, metadata={"general.long": "x" * 1000})
    with open_model(path) as model:
        yield model


@pytest.fixture
def engine(model: Model) -> Iterator[LlamaEngine]:
    with LlamaEngine(model, parameters=parameters(), slots=3, threads=1) as engine:
        engine.warm_up()
        yield engine


@pytest.fixture(params=[True, False], ids=["unified", "divided"])
def either(request: pytest.FixtureRequest, model: Model) -> Iterator[LlamaEngine]:
    """Slots that share their cells, or that have 256 each."""
    with LlamaEngine(
        model, parameters=parameters(), slots=3, threads=1, kv_unified=request.param
    ) as engine:
        engine.warm_up()
        assert engine.kv_unified is request.param
        yield engine


@pytest.fixture
def divided(model: Model) -> Iterator[LlamaEngine]:
    """Three slots that have 256 cells each."""
    with LlamaEngine(
        model, parameters=parameters(), slots=3, threads=1, kv_unified=False
    ) as engine:
        yield engine


def decode_all(engine: LlamaEngine, *sequences: BatchSequence) -> list[DecodeOutcome]:
    """Decode until nothing is pending or a batch fails."""
    outcomes = []
    while any(sequence.pending for sequence in sequences):
        chunks = plan_step(
            [sequence for sequence in sequences if sequence.pending],
            n_batch=engine.n_batch,
            max_prefill_beside_decode=engine.max_prefill_beside_decode,
            max_prefill_alone=engine.n_batch,
        )
        outcomes.append(engine.decode(chunks))
        if outcomes[-1] is not DecodeOutcome.DECODED:
            break
        for chunk in chunks:
            chunk.sequence.advance(chunk.tokens, 1)
    return outcomes


def generate(
    engine: LlamaEngine, slot: int, prompt: list[int], sampling: Sampling, tokens: int = 8
) -> list[int]:
    engine.open(slot, prompt, sampling, None)
    sequence = BatchSequence(slot, list(prompt))
    for _ in range(tokens):
        assert set(decode_all(engine, sequence)) == {DecodeOutcome.DECODED}
        sequence.append(*engine.sample([slot]))
    engine.release(slot)
    engine.keep(slot, 0)
    return sequence.tokens[len(prompt) :]


# --- model --------------------------------------------------------------------------------------


def test_prompt_gets_bos_exactly_once(model: Model) -> None:
    tokens = [BOS, FIRST_BYTE + ord("h"), FIRST_BYTE + ord("i")]
    assert model.tokenize("hi", limit=10**6) == tokens
    assert model.tokenize("<s>hi", limit=10**6) == tokens


def test_special_tokens_in_a_prompt_are_recognised(model: Model) -> None:
    assert model.tokenize("a</s>", limit=10**6) == [BOS, FIRST_BYTE + ord("a"), 2]


def test_model_that_wants_no_bos_gets_none(tmp_path: Path) -> None:
    with open_model(write_tiny_gguf(tmp_path / "m.gguf", add_bos=False)) as plain:
        assert plain.tokenize("a", limit=10**6) == [FIRST_BYTE + ord("a")]
        assert plain.tokenize("", limit=10**6) == []
        assert plain.tokenize("<s>a", limit=10**6) == [BOS, FIRST_BYTE + ord("a")]


def test_text_that_is_no_utf8_is_replaced(model: Model) -> None:
    assert model.tokenize("\ud800", limit=10**6)[1:] == [FIRST_BYTE + ord("?")]


def test_zero_byte_does_not_end_a_prompt(model: Model) -> None:
    assert model.tokenize("a\0b", limit=10**6)[1:] == [FIRST_BYTE + byte for byte in b"a\0b"]


def test_pieces_are_bytes_and_special_tokens_their_text(model: Model) -> None:
    assert model.piece(FIRST_BYTE + 0xE2) == b"\xe2"
    assert model.piece(2) == b"</s>"
    assert model.is_end(2)
    assert not model.is_end(FIRST_BYTE)


def test_metadata_is_every_plain_key_sorted(model: Model) -> None:
    metadata = model.metadata()
    assert list(metadata) == sorted(metadata)
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.context_length"] == "512"
    assert metadata["tokenizer.ggml.add_bos_token"] == "true"
    assert metadata["general.long"] == "x" * 1000
    assert "tokenizer.ggml.tokens" not in metadata


def test_special_tokens_come_as_text(model: Model) -> None:
    assert model.special_tokens == {"bos_token": "<s>", "eos_token": "</s>", "nl_token": "\n"}


def test_broken_file_is_refused_with_llama_cpps_reason(tmp_path: Path) -> None:
    start_backend()
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(EngineError, match=r"cannot be loaded: .+"):
        open_model(path)


def test_loading_ends_when_progress_says_so(tmp_path: Path) -> None:
    start_backend()
    path = write_tiny_gguf(tmp_path / "m.gguf")
    with pytest.raises(EngineError):
        Model(str(path), n_gpu_layers=0, on_progress=lambda _: False)


def test_closing_twice_is_fine(model: Model, tmp_path: Path) -> None:
    plain = open_model(write_tiny_gguf(tmp_path / "m.gguf"))
    engine = LlamaEngine(plain, parameters=parameters(), slots=1, threads=1)
    engine.open(0, [BOS], Sampling(), None)
    for _ in range(2):
        engine.close()
    for _ in range(2):
        plain.close()


def test_devices_name_the_cpu(model: Model) -> None:
    assert any(name.startswith("CPU: ") for name in device_names())


# --- context ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "context_size", "n_batch"),
    [
        ({"context_size": 0}, 512, 512),
        ({"context_size": 300}, 512, 512),
        ({"context_size": 1, "n_batch": 1}, 256, 3),
        ({"n_batch": 2**32 - 1}, 256, 256),
    ],
    ids=str,
)
def test_context_has_the_size_asked_for_and_room_for_each_slot(
    model: Model, asked: dict[str, int], context_size: int, n_batch: int
) -> None:
    with LlamaEngine(model, parameters=parameters(**asked), slots=2, threads=1) as engine:
        assert (engine.context_size, engine.n_batch) == (context_size, n_batch)


@pytest.mark.parametrize(
    ("asked", "slots", "context_size", "slot_context_size", "n_batch"),
    [
        ({"context_size": 2048}, 4, 2048, 512, 2048),
        ({"context_size": 0}, 2, 512, 256, 512),
        ({"context_size": 600}, 2, 1024, 512, 1024),
        ({"context_size": 1, "n_batch": 1}, 3, 768, 256, 4),
        ({"context_size": 256}, 3, 768, 256, 768),
        ({"context_size": 256}, 256, 65536, 256, 2048),
        ({"context_size": 300}, 1, 512, 512, 512),
    ],
    ids=str,
)
def test_divided_context_has_a_part_for_each_slot(
    model: Model,
    asked: dict[str, int],
    slots: int,
    context_size: int,
    slot_context_size: int,
    n_batch: int,
) -> None:
    with LlamaEngine(
        model, parameters=parameters(**asked), slots=slots, threads=1, kv_unified=False
    ) as engine:
        assert (engine.context_size, engine.slot_context_size) == (context_size, slot_context_size)
        assert engine.n_batch == n_batch
        # llama.cpp aborts where a batch is larger than it was told.
        size = min(n_batch // slots, slot_context_size)
        sequences = [BatchSequence(slot, [BOS] * size) for slot in range(slots)]
        assert engine.decode([Chunk(one, size) for one in sequences]) is DecodeOutcome.DECODED


def test_each_slot_of_a_unified_context_can_have_all_of_it(engine: LlamaEngine) -> None:
    assert engine.kv_unified
    assert engine.slot_context_size == engine.context_size == 256


@pytest.mark.parametrize(
    ("kind", "is_unified"), [("mamba", True), ("gemma3", True), ("lfm2", False)]
)
def test_a_state_and_a_sliding_window_are_not_divided(
    tmp_path: Path, kind: str, is_unified: bool
) -> None:
    start_backend()
    path = write_tiny_memory(tmp_path / "tiny.gguf", kind)
    with (
        open_model(path) as model,
        LlamaEngine(model, parameters=parameters(), slots=2, threads=1, kv_unified=False) as engine,
    ):
        assert engine.kv_unified is is_unified
        assert engine.slot_context_size == 256


def test_embeddings_are_not_divided(model: Model) -> None:
    asked = parameters(enable_embeddings=True, pooling_type="Mean")
    with LlamaEngine(model, parameters=asked, slots=3, threads=1, kv_unified=False) as engine:
        assert engine.kv_unified
        assert engine.context_size == 256


@pytest.mark.parametrize(
    "dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "IQ4_NL", "Q5_0", "Q5_1"]
)
def test_every_kv_type_decodes(model: Model, dtype: str) -> None:
    asked = parameters(k_cache_dtype=dtype, v_cache_dtype=dtype)
    with LlamaEngine(model, parameters=asked, slots=1, threads=1) as engine:
        engine.warm_up()
        assert len(generate(engine, 0, [BOS], GREEDY)) == 8


def test_too_many_slots_are_refused(model: Model) -> None:
    with pytest.raises(EngineError, match="257 slots are more than the 256"):
        LlamaEngine(model, parameters=parameters(), slots=257, threads=1)


def test_most_slots_start(model: Model) -> None:
    with LlamaEngine(model, parameters=parameters(), slots=256, threads=1) as engine:
        engine.warm_up()


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 7, 64, 256])
@pytest.mark.parametrize("n_batch", [16, 251, 2048, U32_MAX])
def test_documents_are_pooled_with_any_number_of_slots(
    model: Model, slots: int, n_batch: int
) -> None:
    asked = parameters(enable_embeddings=True, pooling_type="Mean", n_batch=n_batch)
    with LlamaEngine(model, parameters=asked, slots=slots, threads=1) as engine:
        assert engine.n_batch == min(max(n_batch, slots + 1), 256)
        documents = [[BOS, FIRST_BYTE + slot] for slot in range(min(slots, engine.n_batch // 2))]
        vectors = engine.embed(documents)
        alone = engine.embed(documents[-1:])
    assert len(vectors) == len(documents)
    assert np.allclose(vectors[-1], alone[0], rtol=1e-3, atol=1e-4)


def test_a_sliding_window_is_neither_swapped_out_nor_lost_beside_a_tile(tmp_path: Path) -> None:
    path = write_tiny_memory(tmp_path / "tiny.gguf", "gemma3", context_length=4096)
    asked = parameters(context_size=2048, n_batch=2048, k_cache_dtype="F32", v_cache_dtype="F32")

    def tokens(seed: int, count: int) -> list[int]:
        return [BOS, *Random(seed).choices(range(FIRST_BYTE, FIRST_BYTE + 256), k=count - 1)]

    def logits(model: Model, *, finds_no_room: bool) -> list[float]:
        with LlamaEngine(model, parameters=asked, slots=3, threads=1) as engine:
            prompt, other = (BatchSequence(slot, tokens(slot, 1600)) for slot in (0, 1))
            for sequence, count in (
                (BatchSequence(2, [BOS] * 600), 600),
                (prompt, 300),
                (other, 300),
            ):
                assert engine.decode([Chunk(sequence, count)]) is DecodeOutcome.DECODED
                sequence.advance(count, 1)
            assert not engine.swap_out(2)
            engine.keep(2, 0)  # the first of the free cells come before the prompt's
            if finds_no_room:
                chunks = [Chunk(prompt, 1100), Chunk(other, 400)]
                assert engine.decode(chunks) is DecodeOutcome.NO_KV_ROOM
            engine.open(0, prompt.tokens, Sampling(top_logprobs=20, temperature=0.0), None)
            assert engine.decode([Chunk(prompt, 30)]) is DecodeOutcome.DECODED
            engine.sample([0])
            scored = engine.logprobs(0)
            assert scored is not None
            return [logprob for _, logprob in scored.top]

    with open_model(path) as model:
        expected = logits(model, finds_no_room=False)
        assert logits(model, finds_no_room=True) == pytest.approx(expected, abs=1e-3)


# --- generation ---------------------------------------------------------------------------------


def test_batching_does_not_change_what_a_slot_says(either: LlamaEngine) -> None:
    prompts = [either.tokenize(text, limit=10**6) for text in ("one", "another", "x" * 60)]
    alone = [generate(either, 0, prompt, GREEDY) for prompt in prompts]
    sequences = [BatchSequence(slot, list(prompt)) for slot, prompt in enumerate(prompts)]
    for slot, prompt in enumerate(prompts):
        either.open(slot, prompt, GREEDY, None)
    for _ in range(8):
        decode_all(either, *sequences)
        for sequence, token in zip(sequences, either.sample([0, 1, 2]), strict=True):
            sequence.append(token)
    together = [s.tokens[len(p) :] for s, p in zip(sequences, prompts, strict=True)]
    assert together == alone


def test_chunked_prompt_says_the_same_as_a_whole_one(model: Model) -> None:
    prompt = model.tokenize("a prompt that is cut in many chunks", limit=10**6)
    said = []
    for n_batch in (2, 512):
        asked = parameters(n_batch=n_batch, k_cache_dtype="F32", v_cache_dtype="F32")
        with LlamaEngine(model, parameters=asked, slots=1, threads=1) as engine:
            said.append(generate(engine, 0, prompt, GREEDY))
    assert said[0] == said[1]


def test_reused_prefix_says_the_same_as_a_fresh_prompt(either: LlamaEngine) -> None:
    prompt = either.tokenize("a common beginning, then this", limit=10**6)
    fresh = generate(either, 0, prompt, GREEDY)
    text = "a common beginning, then something else"
    other = BatchSequence(1, either.tokenize(text, limit=10**6))
    decode_all(either, other)
    shared = len(either.tokenize("a common beginning, then ", limit=10**6))
    assert either.keep(1, shared)
    sequence = BatchSequence(1, list(prompt), cached=shared)
    either.open(1, prompt, GREEDY, None)
    for _ in range(8):
        decode_all(either, sequence)
        sequence.append(*either.sample([1]))
    assert sequence.tokens[len(prompt) :] == fresh


def test_shared_prefix_says_the_same_as_a_fresh_prompt_and_is_the_others_still(
    either: LlamaEngine,
) -> None:
    prompt = either.tokenize("a common beginning, then this", limit=10**6)
    text = either.tokenize("a common beginning, then something else", limit=10**6)
    fresh, expected = generate(either, 0, prompt, GREEDY), generate(either, 0, text, GREEDY)
    either.keep(0, 0)
    other = BatchSequence(1, list(text))
    decode_all(either, other)
    shared = len(either.tokenize("a common beginning, then ", limit=10**6))
    assert either.share(1, 0, shared)
    sequence = BatchSequence(0, list(prompt), cached=shared)
    for slot, tokens in ((0, prompt), (1, text)):
        either.open(slot, tokens, GREEDY, None)
    other.append(*either.sample([1]))
    for _ in range(8):
        decode_all(either, sequence, other)
        for one, token in zip((sequence, other), either.sample([0, 1]), strict=True):
            one.append(token)
    assert sequence.tokens[len(prompt) :] == fresh
    assert other.tokens[len(text) :][:8] == expected


@pytest.mark.parametrize("slot", [1, 2], ids=["its own", "another"])
def test_swapped_out_prefix_says_the_same_as_a_fresh_prompt(either: LlamaEngine, slot: int) -> None:
    prompt = either.tokenize("a common beginning, then this", limit=10**6)
    fresh = generate(either, 0, prompt, GREEDY)
    text = "a common beginning, then something else"
    decode_all(either, BatchSequence(1, either.tokenize(text, limit=10**6)))
    assert either.swap_out(1)
    between = BatchSequence(0, [BOS] * 256)  # all cells are free
    assert decode_all(either, between) == [DecodeOutcome.DECODED]
    either.keep(0, 0)
    shared = len(either.tokenize("a common beginning, then ", limit=10**6))
    assert either.swap_in(1, slot)
    assert either.keep(slot, shared)
    sequence = BatchSequence(slot, list(prompt), cached=shared)
    either.open(slot, prompt, GREEDY, None)
    for _ in range(8):
        decode_all(either, sequence)
        sequence.append(*either.sample([slot]))
    assert sequence.tokens[len(prompt) :] == fresh


def test_what_is_swapped_out_is_for_all_until_it_is_dropped(either: LlamaEngine) -> None:
    decode_all(either, BatchSequence(0, [BOS] * 50))
    assert either.swap_out(0)
    for slot, held in ((1, 20), (2, 50), (0, 30)):
        assert either.swap_in(0, slot)
        assert either.keep(slot, held)
    either.drop_swapped(0)
    for slot, held in ((0, 30), (1, 20), (2, 50)):
        assert decode_all(either, BatchSequence(slot, [BOS] * 60, cached=held)) == [
            DecodeOutcome.DECODED
        ]


def test_what_is_swapped_out_stays_so_until_there_is_room(
    engine: LlamaEngine, caplog: pytest.LogCaptureFixture
) -> None:
    decode_all(engine, BatchSequence(0, [BOS] * 200))
    assert engine.swap_out(0)
    assert decode_all(engine, BatchSequence(1, [BOS] * 100)) == [DecodeOutcome.DECODED]
    assert not engine.swap_in(0, 2)
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]
    assert decode_all(engine, BatchSequence(2, [BOS] * 20)) == [DecodeOutcome.DECODED]
    engine.keep(1, 0)
    assert engine.swap_in(0, 2)
    assert decode_all(engine, BatchSequence(2, [BOS] * 210, cached=200)) == [DecodeOutcome.DECODED]


def slots_in_place(engine: LlamaEngine) -> list[int]:
    """Whose each cell in use is, in the order of their places, as llama.cpp saves them."""
    context, all_slots = engine._context, -1
    size = llama_cpp.llama_state_seq_get_size(context, all_slots)
    state = (ctypes.c_uint8 * size)()
    assert llama_cpp.llama_state_seq_get_data(context, state, size, all_slots) == size
    _magic, _slot, streams, count, *words = memoryview(bytes(state)).cast("i").tolist()
    cells = [words[3 * place : 3 * place + 3] for place in range(count)]  # position, 1, slot
    assert streams == 1
    assert {owners for _, owners, _ in cells} <= {1}
    return [slot for _, _, slot in cells]


def answering(engine: LlamaEngine, tokens: int) -> list[BatchSequence]:
    """One sequence in each of three slots that has a prompt and has said so many tokens."""
    sequences = []
    for slot in range(3):
        prompt = engine.tokenize(f"prompt {slot}", limit=10**6)
        engine.open(slot, prompt, GREEDY, None)
        sequences.append(BatchSequence(slot, list(prompt)))
    for _ in range(tokens):
        assert set(decode_all(engine, *sequences)) == {DecodeOutcome.DECODED}
        for sequence in sequences:
            sequence.append(*engine.sample([sequence.slot]))
    return sequences


def test_gathered_cells_lie_in_runs_and_say_the_same(engine: LlamaEngine) -> None:
    expected = [sequence.tokens for sequence in answering(engine, 20)]
    for slot in range(3):
        engine.keep(slot, 0)
        engine.release(slot)
    sequences = answering(engine, 9)
    ends = [(sequence.settled, sequence.position) for sequence in sequences]
    assert slots_in_place(engine)[-24:] == [0, 1, 2] * 8  # the last sampled is not decoded yet
    assert {end - start for start, end in ends} == {8}
    assert engine.gather({s.slot: s.settled for s in sequences}) == []
    assert slots_in_place(engine)[-24:] == [0] * 8 + [1] * 8 + [2] * 8
    for _ in range(11):
        assert set(decode_all(engine, *sequences)) == {DecodeOutcome.DECODED}
        for sequence in sequences:
            sequence.append(*engine.sample([sequence.slot]))
    assert [sequence.tokens for sequence in sequences] == expected


def test_gathering_fits_where_all_cells_are_in_use(engine: LlamaEngine) -> None:
    sequences = [BatchSequence(slot, [BOS] * 80) for slot in range(3)]
    decode_all(engine, *sequences)
    for _ in range(5):
        for sequence in sequences:
            sequence.append(BOS)
        assert decode_all(engine, *sequences) == [DecodeOutcome.DECODED]
    assert decode_all(engine, BatchSequence(0, [BOS] * 86, cached=85)) == [DecodeOutcome.DECODED]
    assert len(slots_in_place(engine)) == 256
    assert engine.gather({sequence.slot: 80 for sequence in sequences}) == []
    assert slots_in_place(engine)[-16:] == [0] * 6 + [1] * 5 + [2] * 5


def test_nothing_is_moved_without_memory_for_a_copy(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = answering(engine, 9)
    before = slots_in_place(engine)
    monkeypatch.setattr(SwappedCells, "of", lambda *_: None)
    assert engine.gather({s.slot: s.settled for s in sequences}) == []
    assert slots_in_place(engine) == before


def test_who_lost_its_cells_is_told(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = answering(engine, 9)
    before = slots_in_place(engine)
    monkeypatch.setattr(SwappedCells, "bring_back", lambda *_: False)
    assert engine.gather({s.slot: s.settled for s in sequences}) == [0, 1, 2]
    assert slots_in_place(engine) == before[:-24]


def test_the_most_slots_are_not_gathered(model: Model) -> None:
    with LlamaEngine(model, parameters=parameters(), slots=256, threads=1) as engine:
        sequences = [BatchSequence(slot, [BOS]) for slot in range(3)]
        for _ in range(3):
            assert decode_all(engine, *sequences) == [DecodeOutcome.DECODED]
            for sequence in sequences:
                sequence.append(BOS)
        before = slots_in_place(engine)
        assert engine.gather(dict.fromkeys(range(3), 0)) == []
        assert slots_in_place(engine) == before


def test_a_full_slot_of_a_divided_context_takes_nothing_from_the_others(
    divided: LlamaEngine,
) -> None:
    full, other = BatchSequence(0, [BOS] * 256), BatchSequence(2, [BOS] * 100)
    assert decode_all(divided, full, other) == [DecodeOutcome.DECODED]
    full.append(BOS)
    other.append(BOS)
    both = [Chunk(full, 1), Chunk(other, 1)]
    assert divided.decode(both) is DecodeOutcome.NO_KV_ROOM
    assert divided.decode(both[1:]) is DecodeOutcome.DECODED  # nothing was changed before
    divided.keep(0, 255)
    assert decode_all(divided, BatchSequence(0, [BOS] * 256, cached=255)) == [DecodeOutcome.DECODED]


def test_a_tile_beside_a_full_slot_was_never_there(divided: LlamaEngine) -> None:
    full = BatchSequence(0, [BOS] * 256)
    decode_all(divided, full)
    full.append(BOS)
    prompt = BatchSequence(1, [BOS] * 256)
    assert divided.decode([Chunk(full, 1), Chunk(prompt, 64)]) is DecodeOutcome.NO_KV_ROOM
    assert decode_all(divided, prompt) == [DecodeOutcome.DECODED]


def test_slots_of_a_divided_context_have_copies_of_what_they_share(divided: LlamaEngine) -> None:
    whole = [BOS, *range(FIRST_BYTE, FIRST_BYTE + 255)]
    decode_all(divided, BatchSequence(0, whole))
    assert divided.share(0, 1, 100)
    assert divided.share(1, 2, 100)
    for slot in (0, 1):
        divided.keep(slot, 0)
        decode_all(divided, BatchSequence(slot, [BOS] * 256))  # over the cells that were copied
    expected = generate(divided, 0, whole[:101], GREEDY) if divided.keep(0, 0) else []
    sequence = BatchSequence(2, whole[:101], cached=100)
    divided.open(2, whole[:101], GREEDY, None)
    for _ in range(8):
        assert decode_all(divided, sequence) == [DecodeOutcome.DECODED]
        sequence.append(*divided.sample([2]))
    assert sequence.tokens[101:] == expected


def test_what_cannot_be_copied_is_not_shared(
    divided: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_all(divided, BatchSequence(0, [BOS] * 100))
    decode_all(divided, BatchSequence(1, [BOS] * 100))
    monkeypatch.setattr(SwappedCells, "of", lambda *_: None)
    assert not divided.share(0, 1, 50)
    assert decode_all(divided, BatchSequence(1, [BOS] * 256)) == [DecodeOutcome.DECODED]


def test_slots_of_a_divided_context_are_decoded_in_their_order(
    divided: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = divided._batch.decode

    def note(
        context: object, runs: list[tuple[int, int, list[int]]], *rest: dict[int, int]
    ) -> object:
        decoded.extend(slot for slot, _, _ in runs)
        return decode(context, runs, *rest)

    monkeypatch.setattr(divided._batch, "decode", note)
    chunks = [Chunk(BatchSequence(slot, [BOS, FIRST_BYTE + slot]), 2) for slot in (2, 0, 1)]
    assert divided.decode(chunks) is DecodeOutcome.DECODED
    assert decoded == [0, 1, 2]


def test_nothing_is_gathered_in_a_divided_context(divided: LlamaEngine) -> None:
    sequences = answering(divided, 9)
    assert divided.gather({s.slot: s.settled for s in sequences}) == []
    for sequence in sequences:
        assert decode_all(divided, sequence) == [DecodeOutcome.DECODED]


def test_a_slot_of_a_divided_context_says_the_same_whatever_the_others_hold(
    divided: LlamaEngine,
) -> None:
    prompt = divided.tokenize("seed", limit=10**6)
    sampling = Sampling(seed=1, temperature=2.0, top_k=0, top_p=1.0)
    alone = generate(divided, 2, prompt, sampling)
    for slot, tokens in ((0, 256), (1, 130)):
        decode_all(divided, BatchSequence(slot, [BOS] * tokens))
    assert generate(divided, 2, prompt, sampling) == alone
    divided.keep(0, 0)
    assert generate(divided, 0, prompt, sampling) == alone


def test_shared_cells_are_free_when_nobody_has_them_any_more(engine: LlamaEngine) -> None:
    common = [BOS] * 150
    decode_all(engine, BatchSequence(0, list(common)))
    assert engine.share(0, 1, 150)
    assert engine.share(0, 2, 150)
    longer = BatchSequence(1, [*common, *[BOS] * 50], cached=150)
    assert decode_all(engine, longer) == [DecodeOutcome.DECODED]  # 200 of 256
    wanting = BatchSequence(0, [BOS] * 110)
    for slot in (0, 1):
        engine.keep(slot, 0)
        assert decode_all(engine, wanting) == [DecodeOutcome.NO_KV_ROOM]
    engine.keep(2, 0)
    assert decode_all(engine, wanting) == [DecodeOutcome.DECODED]


@pytest.fixture(scope="module")
def roomy(model: Model) -> Iterator[LlamaEngine]:
    asked = parameters(context_size=1024, k_cache_dtype="F32", v_cache_dtype="F32")
    with LlamaEngine(model, parameters=asked, slots=3, threads=1) as engine:
        yield engine


@pytest.fixture
def answers_and_prompt(roomy: LlamaEngine) -> Iterator[list[BatchSequence]]:
    """Two answers of 150 cells each, one token pending, and a prompt of 200 tokens."""
    sequences = [BatchSequence(slot, [BOS, *[FIRST_BYTE + slot] * 149]) for slot in (0, 1)]
    decode_all(roomy, *sequences)
    for sequence in sequences:
        sequence.append(FIRST_BYTE + 7)
        roomy.open(sequence.slot, sequence.tokens, GREEDY, None)
    yield [*sequences, BatchSequence(2, [BOS, *range(FIRST_BYTE, FIRST_BYTE + 199)])]
    for slot in range(3):
        roomy.release(slot)
        roomy.keep(slot, 0)


def test_answers_beside_a_tile_say_the_same_as_without(
    roomy: LlamaEngine, answers_and_prompt: list[BatchSequence]
) -> None:
    one, other, prompt = answers_and_prompt
    both = [Chunk(one, 1), Chunk(other, 1)]
    assert roomy.decode(both) is DecodeOutcome.DECODED
    expected = roomy.sample([0, 1])
    for sequence in (one, other):
        roomy.keep(sequence.slot, sequence.decoded)
    assert roomy.decode([*both, Chunk(prompt, 64)]) is DecodeOutcome.DECODED
    assert roomy.sample([0, 1]) == expected
    prompt.advance(64, 1)
    assert roomy.decode([Chunk(prompt, 136)]) is DecodeOutcome.DECODED


def test_a_tile_without_room_for_the_answers_beside_it_was_never_there(
    roomy: LlamaEngine, answers_and_prompt: list[BatchSequence]
) -> None:
    one, other, prompt = answers_and_prompt
    prompt.tokens += [BOS] * 1000
    tile = 1024 - 300 - 1  # all cells but one
    chunks = [Chunk(one, 1), Chunk(other, 1), Chunk(prompt, tile)]
    assert roomy.decode(chunks) is DecodeOutcome.NO_KV_ROOM
    chunks = [*chunks[:2], Chunk(prompt, tile - 1)]
    assert roomy.decode(chunks) is DecodeOutcome.DECODED


def test_same_seed_says_the_same_and_others_do_not(either: LlamaEngine) -> None:
    prompt = either.tokenize("seed", limit=10**6)
    said = [
        generate(either, 0, prompt, Sampling(seed=seed, temperature=2.0, top_k=0, top_p=1.0))
        for seed in (1, 1, 2)
    ]
    assert said[0] == said[1] != said[2]


def test_top_k_of_one_is_greedy_whatever_the_temperature(engine: LlamaEngine) -> None:
    prompt = engine.tokenize("greedy", limit=10**6)
    hot = Sampling(top_k=1, temperature=5.0, presence_penalty=0.0)
    assert generate(engine, 0, prompt, hot) == generate(engine, 0, prompt, GREEDY)


def test_penalties_forbid_the_tokens_of_the_prompt(engine: LlamaEngine) -> None:
    everything_even = [BOS, *range(FIRST_BYTE, FIRST_BYTE + 200, 2)]
    heavy = Sampling(temperature=0.0, presence_penalty=1000.0)
    said = generate(engine, 0, everything_even, heavy, tokens=20)
    assert len(set(said)) == 20
    assert not set(said) & set(everything_even)


def test_full_cache_changes_nothing_and_room_can_be_made(engine: LlamaEngine) -> None:
    idle = BatchSequence(0, [BOS] * 200)
    assert decode_all(engine, idle) == [DecodeOutcome.DECODED]
    wanting = BatchSequence(1, [BOS] * 100)
    assert decode_all(engine, wanting) == [DecodeOutcome.NO_KV_ROOM]
    engine.keep(0, 0)
    assert decode_all(engine, wanting) == [DecodeOutcome.DECODED]


def test_batch_at_wrong_positions_is_refused_and_the_engine_goes_on(either: LlamaEngine) -> None:
    decode_all(either, BatchSequence(0, [BOS] * 4))
    assert decode_all(either, BatchSequence(0, [BOS] * 20, cached=9)) == [
        DecodeOutcome.INVALID_BATCH
    ]
    assert decode_all(either, BatchSequence(1, [BOS] * 4)) == [DecodeOutcome.DECODED]
