"""``POST /v1/embeddings``."""

from typing import Literal

from msgspec import Struct

from paddler.messages.openai.common import ModelName


class EmbeddingsRequest(Struct, frozen=True, kw_only=True):
    """The body. ``dimensions`` and token ids are known, and refused with a reason."""

    model: ModelName
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class Embedding(Struct, frozen=True, kw_only=True):
    """One document's vector: numbers, or the base64 of their 32-bit little-endian floats."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(Struct, frozen=True):
    """Token counts of all documents."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """The body of the answer."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
