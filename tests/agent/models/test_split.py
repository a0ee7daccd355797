"""Which files make up a model."""

import pytest

from paddler.agent.models.split import part_names


@pytest.mark.parametrize(
    ("filename", "parts"),
    [
        ("model.gguf", ["model.gguf"]),
        (
            "q8/model-00001-of-00003.gguf",
            [f"q8/model-0000{n}-of-00003.gguf" for n in (1, 2, 3)],
        ),
        ("m-00002-of-00002.gguf", ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]),
        ("m-00001-of-00001.gguf", ["m-00001-of-00001.gguf"]),
        ("m-00003-of-00002.gguf", ["m-00003-of-00002.gguf"]),  # no part of anything
        ("m-00000-of-00002.gguf", ["m-00000-of-00002.gguf"]),
        ("m-1-of-2.gguf", ["m-1-of-2.gguf"]),
        ("m-00001-of-00002.bin", ["m-00001-of-00002.bin"]),
        ("", [""]),
    ],
)
def test_a_models_parts_follow_from_the_name_of_any(filename: str, parts: list[str]) -> None:
    assert list(part_names(filename)) == parts
