"""The OpenAI-compatible service on a real fleet, through clients that others wrote."""

from collections.abc import Iterator
from typing import Literal

import openai
import pydantic
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_openai import ChatOpenAI

from tests.clients.node_clients import require_node_clients, run_script
from tests.clients.openai_tap import Tap
from tests.e2e.fleet import Fleet

QUESTION = "What is the capital of France?"


@pytest.mark.parametrize("script", ["chat.mjs", "responses.mjs"])
def test_openais_client_for_node_is_served(tap: Tap, script: str) -> None:
    require_node_clients()
    run_script(script, tap.url)


def test_a_client_for_node_that_leaves_frees_its_slots(fleet: Fleet, tap: Tap) -> None:
    require_node_clients()
    run_script("leaving.mjs", tap.url)
    fleet.wait_idle()


@pytest.fixture
def langchain(tap: Tap) -> Iterator[ChatOpenAI]:
    with openai.DefaultHttpxClient() as http_client:
        yield ChatOpenAI(
            base_url=tap.url,
            api_key="unused",  # type: ignore[arg-type]
            model="any",
            max_tokens=60,
            temperature=0,
            seed=7,
            max_retries=0,
            http_client=http_client,
        )


def test_langchain_is_answered_whole_and_streamed_alike(langchain: ChatOpenAI) -> None:
    whole = langchain.invoke(QUESTION, max_tokens=12)
    pieces = list(langchain.stream(QUESTION, max_tokens=12, stream_usage=True))
    assert whole.content
    assert "".join(str(piece.content) for piece in pieces) == whole.content
    assert whole.usage_metadata is not None
    usages = [piece.usage_metadata for piece in pieces if piece.usage_metadata is not None]
    assert [usage["output_tokens"] for usage in usages] == [whole.usage_metadata["output_tokens"]]
    answers = langchain.batch([QUESTION, "Hello", "Goodbye"], max_tokens=4)
    assert all(answer.content for answer in answers)


class Capital(pydantic.BaseModel):
    """A capital."""

    city: Literal["Paris", "Rome"]
    is_in_europe: bool


def test_langchain_reads_an_answer_into_a_model(langchain: ChatOpenAI) -> None:
    answer = langchain.with_structured_output(Capital).invoke(QUESTION)
    assert isinstance(answer, Capital)


def test_langchain_knows_a_prompt_that_is_too_long(langchain: ChatOpenAI) -> None:
    with pytest.raises(ContextOverflowError):
        langchain.invoke("a b c d " * 2000)
