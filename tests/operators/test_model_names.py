from typing import Any

import pytest

from paddler.errors import ConfigError
from paddler.operators.model_names import parse_model, print_model

HUB = {"repo_id": "o/r", "filename": "f.gguf", "revision": "main"}


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("none", "None"),
        ("hf:o/r/f.gguf", {"HuggingFace": HUB}),
        ("hf:o/r/f.gguf@v1", {"HuggingFace": HUB | {"revision": "v1"}}),
        ("hf:o/r/sub/f.gguf", {"HuggingFace": HUB | {"filename": "sub/f.gguf"}}),
        ("https://example.com/m.gguf?x=1", {"Url": {"url": "https://example.com/m.gguf?x=1"}}),
        ("/models/m.gguf", {"LocalToAgent": "/models/m.gguf"}),
    ],
)
def test_a_name_is_a_reference_and_back(text: str, reference: Any) -> None:
    assert parse_model(text) == reference
    assert print_model(reference) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected hf:"),
        ("hf:model", "expected hf:OWNER/REPO/FILE"),
        ("hf:o/r", "expected hf:OWNER/REPO/FILE"),
        ("ftp://x/m.gguf", "expected hf:"),
        ("m.gguf", "must be absolute"),
        ("/m\udcff.gguf", "printable"),
        ("/m\x1b[2J.gguf", "printable"),
    ],
)
def test_what_names_no_model_is_refused(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        parse_model(text)


def test_a_reference_of_a_newer_balancer_is_shown_as_it_is() -> None:
    assert print_model({"New": 1}) == "{'New': 1}"
