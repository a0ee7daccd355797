import ctypes
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from llama_cpp import llama_cpp, mtmd_cpp

from paddler.agent.worker.batch import NO_TOKEN, BatchSequence
from paddler.agent.worker.engine import DecodeOutcome, ImagesRefused, TokenizedPrompt
from paddler.agent.worker.engine_llama import LlamaEngine, Model, start_backend
from paddler.agent.worker.engine_log import EngineError
from paddler.agent.worker.images import IMAGE_MARKER, RgbImage
from paddler.agent.worker.vision import Projector
from paddler.messages.link import Sampling
from paddler.messages.state import DEFAULT_INFERENCE_PARAMETERS
from tests.agent.worker.test_engine_llama import decode_all, open_model
from tests.tiny_gguf import BOS, FIRST_BYTE, write_tiny_gguf, write_tiny_mmproj

GREEDY = Sampling(temperature=0.0, presence_penalty=0.0)
PARAMETERS = msgspec.structs.replace(
    DEFAULT_INFERENCE_PARAMETERS,
    context_size=2048,
    penalty_repeat=1.0,
    k_cache_dtype="F32",
    v_cache_dtype="F32",
)


def image(width: int = 64, height: int = 64, *, level: int = 0) -> RgbImage:
    row = bytes((level + x) % 256 for x in range(width * 3))
    return RgbImage(width, height, row * height)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    start_backend()
    return tmp_path_factory.mktemp("vision")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    with open_model(write_tiny_gguf(folder / "model.gguf", context_length=2048)) as model:
        yield model


@pytest.fixture(scope="module")
def projector(folder: Path, model: Model) -> Iterator[Projector]:
    with open_projector(write_tiny_mmproj(folder / "mmproj.gguf"), model) as projector:
        yield projector


@pytest.fixture
def engine(model: Model, projector: Projector) -> Iterator[LlamaEngine]:
    with open_engine(model, projector) as engine:
        yield engine


def open_projector(path: Path, model: Model) -> Projector:
    return Projector(str(path), model.handle, threads=1, use_gpu=False)


def open_engine(model: Model, projector: Projector) -> LlamaEngine:
    return LlamaEngine(model, parameters=PARAMETERS, slots=2, threads=1, projector=projector)


def sequence_of(prompt: TokenizedPrompt, slot: int = 0) -> BatchSequence:
    return BatchSequence(slot, list(prompt.tokens), images=prompt.images)


def decode_prompt(engine: LlamaEngine, sequence: BatchSequence) -> None:
    """Decode text up to an image, the image, and so on."""
    while sequence.pending:
        if (placed := sequence.next_image) is not None:
            assert engine.encode_image(placed)
            outcome = engine.decode_image(sequence.slot, sequence.position, placed)
            assert outcome is DecodeOutcome.DECODED
            sequence.advance_image(1)
            continue
        text = BatchSequence(sequence.slot, sequence.tokens[: sequence.decoded + sequence.ready])
        text.decoded, text.position = sequence.decoded, sequence.position
        assert set(decode_all(engine, text)) == {DecodeOutcome.DECODED}
        sequence.advance(sequence.ready, 1)


def say(engine: LlamaEngine, prompt: TokenizedPrompt, slot: int = 0, tokens: int = 8) -> list[int]:
    engine.open(slot, prompt.text_tokens, GREEDY, None)
    sequence = sequence_of(prompt, slot)
    for _ in range(tokens):
        decode_prompt(engine, sequence)
        sequence.append(*engine.sample([slot]))
    engine.release(slot)
    engine.keep(slot, 0)
    return sequence.tokens[len(prompt.tokens) :]


def say_like_mtmd(engine: LlamaEngine, prompt: TokenizedPrompt, projector: Projector) -> list[int]:
    """What follows when mtmd's own helper decodes the images of the prompt."""
    position = decoded = 0
    for placed in [*prompt.images, None]:
        text = prompt.tokens[decoded : placed.start if placed else None]
        if text:
            sequence = BatchSequence(0, text)
            sequence.position = position
            assert set(decode_all(engine, sequence)) == {DecodeOutcome.DECODED}
            position = sequence.position
        if placed:
            end = llama_cpp.llama_pos()
            mtmd_cpp.mtmd_helper_eval_chunk_single(
                projector._context,
                engine._context,
                placed.native,
                position,
                0,
                engine.n_batch,
                False,
                ctypes.byref(end),
            )
            position, decoded = end.value, placed.start + placed.cells
    engine.open(0, prompt.text_tokens, GREEDY, None)
    answer = BatchSequence(0, [])
    answer.position = position
    for _ in range(8):
        answer.append(*engine.sample([0]))
        decode_all(engine, answer)
    engine.release(0)
    engine.keep(0, 0)
    return answer.tokens


def test_a_prompt_holds_text_and_tiles_in_order(engine: LlamaEngine) -> None:
    prompt = engine.tokenize_with_images(
        f"<s>ab{IMAGE_MARKER}c{IMAGE_MARKER}d", [image(100, 50), image()], limit=2000
    )
    assert prompt.tokens[:3] == [BOS, FIRST_BYTE + ord("a"), FIRST_BYTE + ord("b")]
    assert prompt.tokens[3] != BOS
    assert prompt.tokens[-1] == FIRST_BYTE + ord("d")
    # An overview and two tiles, then an overview and one tile: four tokens each.
    assert [(placed.cells, placed.positions) for placed in prompt.images] == [(4, 4)] * 5
    assert prompt.image_cells == 20
    for placed in prompt.images:
        assert prompt.tokens[placed.start : placed.start + 4] == [NO_TOKEN] * 4
    assert NO_TOKEN not in prompt.text_tokens
    assert len(prompt.text_tokens) + prompt.image_cells == len(prompt.tokens)
    for _ in range(2):
        prompt.close()


@pytest.mark.parametrize(
    ("text", "places"), [("none", 0), (IMAGE_MARKER * 2, 2), (f"{IMAGE_MARKER}\0{IMAGE_MARKER}", 2)]
)
def test_every_image_needs_its_one_place(engine: LlamaEngine, text: str, places: int) -> None:
    with pytest.raises(ImagesRefused, match=f"it has {places} places for 1 images"):
        engine.tokenize_with_images(text, [image()], limit=2000)


def test_a_text_that_does_not_fit_is_noticed_before_its_images(engine: LlamaEngine) -> None:
    prompt = engine.tokenize_with_images("x" * 100 + IMAGE_MARKER, [image()], limit=50)
    assert len(prompt.tokens) > 50
    assert prompt.images == ()


def test_an_image_decodes_as_mtmd_itself_does_it(engine: LlamaEngine, projector: Projector) -> None:
    prompt = engine.tokenize_with_images(f"a {IMAGE_MARKER} b", [image(100, 50)], limit=2000)
    assert say(engine, prompt) == say_like_mtmd(engine, prompt, projector)
    prompt.close()


def test_positions_along_two_axes_are_those_of_mtmd(folder: Path) -> None:
    path = write_tiny_gguf(folder / "qwen.gguf", architecture="qwen2vl", context_length=2048)
    projection = write_tiny_mmproj(folder / "merger.gguf", projector="qwen2vl_merger")
    with (
        open_model(path) as model,
        open_projector(projection, model) as projector,
        open_engine(model, projector) as engine,
    ):
        prompt = engine.tokenize_with_images(
            f"a{IMAGE_MARKER}b{IMAGE_MARKER}c", [image(320, 160), image(200, 300)], limit=2000
        )
        assert [(placed.cells, placed.positions) for placed in prompt.images] == [
            (50, 10),
            (54, 9),
        ]
        assert say(engine, prompt) == say_like_mtmd(engine, prompt, projector)
        prompt.close()


def test_what_an_image_shows_changes_what_is_said(engine: LlamaEngine) -> None:
    said = []
    for level in (0, 100, 0):
        prompt = engine.tokenize_with_images(f"a{IMAGE_MARKER}b", [image(level=level)], limit=2000)
        said.append(say(engine, prompt))
        prompt.close()
    assert said[0] == said[2] != said[1]


def test_an_image_in_one_slot_leaves_the_other_alone(engine: LlamaEngine) -> None:
    text = TokenizedPrompt(engine.tokenize("a text beside", limit=2000))
    seen = engine.tokenize_with_images(f"a{IMAGE_MARKER}b", [image()], limit=2000)
    alone = say(engine, text), say(engine, seen, slot=1)
    first, second = sequence_of(text, 0), sequence_of(seen, 1)
    engine.open(0, text.text_tokens, GREEDY, None)
    decode_prompt(engine, first)
    first.append(*engine.sample([0]))
    engine.open(1, seen.text_tokens, GREEDY, None)
    decode_prompt(engine, second)
    second.append(*engine.sample([1]))
    for _ in range(7):
        decode_all(engine, first, second)
        for sequence, token in zip((first, second), engine.sample([0, 1]), strict=True):
            sequence.append(token)
    together = [s.tokens[len(p.tokens) :] for s, p in ((first, text), (second, seen))]
    assert together == list(alone)
    seen.close()


def test_an_image_without_room_changes_nothing(engine: LlamaEngine) -> None:
    idle = BatchSequence(0, [BOS] * (engine.context_size - 2))
    decode_all(engine, idle)
    prompt = engine.tokenize_with_images(f"{IMAGE_MARKER}b", [image()], limit=2000)
    (placed, _) = prompt.images
    assert engine.encode_image(placed)
    assert engine.decode_image(1, 0, placed) is DecodeOutcome.NO_KV_ROOM
    engine.keep(0, 0)
    assert engine.decode_image(1, 0, placed) is DecodeOutcome.DECODED
    prompt.close()


def test_an_image_that_is_seen_at_once_may_be_larger_than_a_common_batch(
    folder: Path, model: Model
) -> None:
    # Gemma 3 lets all tokens of an image see each other.
    path = write_tiny_mmproj(folder / "gemma.gguf", projector="gemma3", image_size=832)
    with open_projector(path, model) as projector, open_engine(model, projector) as engine:
        assert not projector.is_causal
        prompt = engine.tokenize_with_images(f"a{IMAGE_MARKER}b", [image()], limit=2000)
        assert [placed.cells for placed in prompt.images] == [676]
        assert len(say(engine, prompt, tokens=2)) == 2
        prompt.close()


@pytest.mark.parametrize("size", [(1, 1), (200, 1), (1, 200), (5, 999)], ids=str)
def test_odd_shapes_are_tokenized(engine: LlamaEngine, size: tuple[int, int]) -> None:
    prompt = engine.tokenize_with_images(f"a{IMAGE_MARKER}b", [image(*size)], limit=2000)
    assert engine.encode_image(prompt.images[-1])
    prompt.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "cannot be loaded as a multimodal projection: .+"),
        (b"no projection", "invalid magic"),
        (b"GGUF\x03\0\0\0", "cannot be loaded as a multimodal projection: .+"),
    ],
    ids=repr,
)
def test_a_file_that_is_no_projection_is_refused(
    folder: Path, model: Model, content: bytes | None, reason: str
) -> None:
    path = folder / "broken.gguf"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=reason):
        open_projector(path, model)


def test_a_projection_for_another_model_is_refused(folder: Path, model: Model) -> None:
    path = write_tiny_mmproj(folder / "wide.gguf", projection_width=576)
    with pytest.raises(EngineError, match="mismatch between text model"):
        open_projector(path, model)


def test_closing_twice_is_fine(folder: Path, model: Model) -> None:
    projector = open_projector(folder / "mmproj.gguf", model)
    prompt = projector.tokenize(f"a{IMAGE_MARKER}b", [image()])
    for _ in range(2):
        projector.close()
    for _ in range(2):
        prompt.close()


def test_many_prompts_leave_no_memory_behind(engine: LlamaEngine) -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    large = image(640, 640)
    before = 0
    for turn in range(60):
        engine.tokenize_with_images(f"a{IMAGE_MARKER}b", [large], limit=2000).close()
        if turn == 20:
            before = resident_bytes()
    # One prompt holds 6 MB of pixels.
    assert resident_bytes() - before < 40 * 1024 * 1024
