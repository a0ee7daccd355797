import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddler.agent.slot_table import SharedSlotTable, SlotState, create_slot_memory
from paddler.agent.worker.embeddings import (
    Document,
    EmbeddingFailed,
    EmbeddingStreams,
    Vector,
    normalize,
    print_vector,
    take_batch,
)
from paddler.errors import RemoteProtocolError
from paddler.messages.inference import (
    ContinueFromRawPrompt,
    EmbeddingInput,
    GenerateEmbeddingBatch,
    RmsNorm,
    RmsNormMethod,
)
from paddler.messages.link import EmbeddingJob, FrameKind, RawPromptJob, StartStream, StopStream
from tests.agent.worker.frames import Frame, split_frames

LABEL = 'agent "gpu-1"'


class ByteEngine:
    """One token per byte; a document's vector is its length and its first byte."""

    n_batch = 10
    pooling_type = "Mean"

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.fails = False

    def tokenize(self, text: str, *, limit: int) -> list[int]:
        return list(text.encode())

    def embed(self, documents: Sequence[list[int]]) -> list[Vector]:
        if self.fails:
            raise EmbeddingFailed("decoding failed: COMPUTE_FAILED")
        self.batches.append([list(document) for document in documents])
        return [np.array([len(d), d[0]], np.float32) for d in documents]


class Harness:
    def __init__(self, slots: int = 2) -> None:
        self.engine = ByteEngine()
        fd = create_slot_memory(slots)
        self.table = SharedSlotTable(fd, slots)
        os.close(fd)
        self.streams = EmbeddingStreams(self.engine, self.table, agent_label=LABEL)
        self.frames: list[Frame] = []
        self.finished: list[int] = []

    def start(self, stream_id: int, *documents: str) -> None:
        inputs = [EmbeddingInput(text, f"{stream_id}/{n}") for n, text in enumerate(documents)]
        job = EmbeddingJob(GenerateEmbeddingBatch(inputs, "None"))
        self.streams.start(StartStream(stream_id=stream_id, job=job))
        self.take()

    def take(self) -> None:
        if (taken := self.streams.take_frames()) is not None:
            self.frames += split_frames(taken[0])
            self.finished += taken[1]

    def run(self) -> None:
        while self.streams.is_running:
            self.streams.step()
            self.take()

    def said(self, stream_id: int) -> list[Any]:
        return [msgspec.json.decode(f.payload) for f in self.frames if f.stream_id == stream_id]

    def ids(self, stream_id: int) -> list[str]:
        return [
            result["Embedding"]["source_document_id"]
            for result in self.said(stream_id)
            if "Embedding" in result
        ]


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_every_document_gets_its_embedding_in_order(harness: Harness) -> None:
    harness.start(1, "aaa", "bb", "c")
    harness.run()
    assert harness.said(1) == [
        {
            "Embedding": {
                "embedding": [float(len(text)), float(ord(text[0]))],
                "normalization_method": "None",
                "pooling_type": "Mean",
                "source_document_id": f"1/{n}",
            }
        }
        for n, text in enumerate(["aaa", "bb", "c"])
    ] + [{"prompt_tokens": 6}, "Done"]
    assert harness.finished == [1]
    assert [frame.kind for frame in harness.frames] == [FrameKind.EMBEDDING] * 3 + [
        FrameKind.EMBEDDING_USAGE,
        FrameKind.EMBEDDING_END,
    ]


def test_a_batch_holds_what_fits_in_tokens_and_slots(harness: Harness) -> None:
    harness.start(1, "aaaa", "bbbb", "cccc", "d", "e", "f")
    harness.run()
    assert [[len(d) for d in batch] for batch in harness.engine.batches] == [[4, 4], [4, 1], [1, 1]]


def test_the_same_document_is_embedded_once(harness: Harness) -> None:
    harness.start(1, "aaa", "bb", "aaa", "aaa", "bb")
    harness.run()
    assert len(harness.ids(1)) == 5
    assert sum(map(len, harness.engine.batches)) == 2


def test_documents_that_are_too_long_are_told_first_and_skipped(harness: Harness) -> None:
    harness.start(1, "ok", "x" * 11)
    harness.run()
    assert harness.said(1)[0] == {
        "DocumentExceedsBatchSize": {
            "document_tokens": 11,
            "n_batch": 10,
            "source_document_id": "1/1",
        }
    }
    assert harness.ids(1) == ["1/0"]
    assert harness.said(1)[-1] == "Done"


@pytest.mark.parametrize("documents", [(), ("x" * 11, "y" * 12)])
def test_nothing_to_embed_is_told(harness: Harness, documents: tuple[str, ...]) -> None:
    harness.start(1, *documents)
    harness.run()
    assert harness.said(1)[-1] == "NoEmbeddingsProduced"


def test_requests_take_turns(harness: Harness) -> None:
    harness.start(1, *"abcdefgh")
    harness.start(2, "x")
    harness.streams.step()
    harness.streams.step()
    harness.take()
    assert harness.ids(2) == ["2/0"]
    assert len(harness.ids(1)) == 2


def test_a_stopped_request_ends_and_frees_its_slot(harness: Harness) -> None:
    harness.start(1, *"abcdefgh")
    harness.streams.step()
    harness.streams.stop(StopStream(1))
    harness.streams.stop(StopStream(9))
    harness.take()
    assert harness.finished == [1]
    assert not harness.streams.is_running
    assert {row.state for row in harness.table.rows()} == {SlotState.IDLE}


def test_a_reset_is_silent(harness: Harness) -> None:
    harness.start(1, "a")
    harness.streams.step()
    harness.streams.reset()
    harness.take()
    assert harness.finished == []
    harness.start(1, "a")
    harness.run()
    assert harness.finished == [1]


def test_a_failing_engine_ends_one_request_by_name(harness: Harness) -> None:
    harness.engine.fails = True
    harness.start(1, "a")
    harness.run()
    assert harness.said(1) == [{"Error": f"{LABEL}: decoding failed: COMPUTE_FAILED"}]
    harness.engine.fails = False
    harness.start(2, "a")
    harness.run()
    assert harness.said(2)[-1] == "Done"


def test_more_requests_than_slots_are_refused(harness: Harness) -> None:
    for stream_id in (1, 2, 3):
        harness.start(stream_id, "a")
    assert harness.said(3) == [
        {"Error": f"{LABEL}: no available sequence slots, all slots are busy"}
    ]


def test_text_cannot_be_had(harness: Harness) -> None:
    job = RawPromptJob(ContinueFromRawPrompt(raw_prompt="x", max_tokens=1))
    harness.streams.start(StartStream(stream_id=1, job=job))
    harness.take()
    ((variant, text),) = harness.said(1)[0].items()
    assert variant == "TokenGenerationDisabled"
    assert text == (
        f"{LABEL}: token generation is disabled because this agent is running in "
        "embeddings-only mode"
    )


def test_an_id_in_use_is_the_parents_fault(harness: Harness) -> None:
    harness.start(1, "a")
    with pytest.raises(RemoteProtocolError):
        harness.start(1, "a")


documents = st.lists(st.text("ab", min_size=1, max_size=6), max_size=12)


@given(texts=documents, n_batch=st.integers(6, 20), slots=st.integers(1, 4))
def test_batches_hold_every_document_once_and_fit(
    texts: list[str], n_batch: int, slots: int
) -> None:
    left = deque(Document(str(n), tuple(text.encode())) for n, text in enumerate(texts))
    done: dict[tuple[int, ...], bytes] = {}
    seen = []
    while left:
        batch = take_batch(left, done, n_batch=n_batch, slots=slots)
        new = {document.tokens for document in batch} - set(done)
        assert len(new) <= slots
        assert sum(map(len, new)) <= n_batch
        done |= dict.fromkeys(new, b"")
        seen += [document.id for document in batch]
    assert seen == [str(n) for n in range(len(texts))]


def test_normalizations_scale_as_they_say() -> None:
    vector = np.array([3.0, 4.0], np.float32)
    assert normalize(vector, "None").tolist() == [3.0, 4.0]
    assert normalize(vector, "L2").tolist() == pytest.approx([0.6, 0.8])
    rms = normalize(vector, RmsNormMethod(rms_norm=RmsNorm(0.5)))
    assert rms.tolist() == pytest.approx([3 / 13**0.5, 4 / 13**0.5])


@pytest.mark.parametrize("method", ["None", "L2", RmsNormMethod(rms_norm=RmsNorm(0.0))])
def test_a_zero_vector_stays_zero(method: Any) -> None:
    assert normalize(np.zeros(2, np.float32), method).tolist() == [0.0, 0.0]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_printed_numbers_are_json_and_the_same_floats(numbers: list[float]) -> None:
    vector = np.array(numbers, np.float32)
    parsed = np.array(msgspec.json.decode(print_vector(vector)), np.float32)
    assert np.array_equal(parsed, vector)


def test_what_is_not_a_number_is_an_error() -> None:
    with pytest.raises(EmbeddingFailed):
        print_vector(np.array([np.nan], np.float32))
