"""Vectors of a real fleet, through the clients that applications use."""

import math
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from openai import OpenAI

from tests.clients.node_clients import require_node_clients, run_script
from tests.clients.openai_tap import Tap
from tests.e2e.fleet import PATIENT, Fleet

WIDTH = 576
TEXTS = ["The sun shines.", "The moon is out.", "A dog barks."]


@pytest.fixture(scope="module")
def embedding_fleet(
    tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path
) -> Iterator[Fleet]:
    """An agent of 2 slots in embeddings mode."""
    with Fleet(tmp_path_factory.mktemp("vectors"), *PATIENT) as fleet:
        fleet.start_agent("a", 2)
        fleet.put_model(
            smollm2_path, enable_embeddings=True, n_batch=64, context_size=512, pooling_type="Mean"
        )
        fleet.wait_slots(2)
        yield fleet
        fleet.wait_idle()


@pytest.fixture
def tap(embedding_fleet: Fleet) -> Iterator[Tap]:
    with Tap(embedding_fleet.openai) as tap:
        yield tap


@pytest.fixture
def client(tap: Tap) -> Iterator[OpenAI]:
    with OpenAI(base_url=tap.url, api_key="unused") as client:
        yield client


def test_each_text_has_its_vector_packed_or_plain(client: OpenAI) -> None:
    packed = client.embeddings.create(model="any", input=TEXTS)
    plain = client.embeddings.create(model="any", input=TEXTS, encoding_format="float")
    assert [one.index for one in packed.data] == [0, 1, 2]
    assert packed.usage == plain.usage
    assert packed.usage.prompt_tokens > 0
    for one, other in zip(packed.data, plain.data, strict=True):
        assert len(one.embedding) == WIDTH
        assert one.embedding == pytest.approx(other.embedding, abs=1e-4)
        assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-3)
    single = client.embeddings.create(model="any", input=TEXTS[1])
    assert single.data[0].embedding == pytest.approx(packed.data[1].embedding, abs=1e-2)


def test_what_cannot_be_is_refused_by_name(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as resized:
        client.embeddings.create(model="any", input="a", dimensions=8)
    with pytest.raises(openai.BadRequestError) as tokens:
        client.embeddings.create(model="any", input=[1, 2])
    with pytest.raises(openai.BadRequestError, match=r"at most 64 \(n_batch\)") as long:
        client.embeddings.create(model="any", input=["a", "b c " * 100])
    assert [caught.value.param for caught in (resized, tokens, long)] == [
        "dimensions",
        "input",
        "input",
    ]


def test_text_is_not_generated_here_and_not_asked_for_again(tap: Tap, client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as chat:
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(openai.APIStatusError) as response:
        client.responses.create(model="any", input="Hi")
    assert (chat.value.status_code, response.value.status_code) == (501, 501)
    assert len(tap.exchanges) == 2


def test_langchain_embeds_documents(tap: Tap) -> None:
    with openai.DefaultHttpxClient() as http_client:
        embeddings = OpenAIEmbeddings(
            base_url=tap.url,
            api_key="unused",  # type: ignore[arg-type]
            model="any",
            check_embedding_ctx_length=False,  # it would send the ids of another model's tokens
            http_client=http_client,
        )
        vectors = embeddings.embed_documents(TEXTS)
        again = embeddings.embed_query(TEXTS[0])
    assert [len(vector) for vector in vectors] == [WIDTH] * 3
    assert again == pytest.approx(vectors[0], abs=1e-2)


def test_openais_client_for_node_unpacks_vectors(tap: Tap) -> None:
    require_node_clients()
    run_script("embeddings.mjs", tap.url)
