"""Vocabularies that grammars are tried on, loaded once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from paddler.agent.worker.engine_llama import Model, start_backend
from tests.agent.worker.accepting import Acceptor
from tests.tiny_gguf import FIRST_BYTE, write_tiny_gguf


@pytest.fixture(scope="session")
def byte_grammars(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acceptor]:
    """Grammars over a vocabulary whose tokens are bytes: quick, and no token spans two rules."""
    start_backend()
    path = write_tiny_gguf(tmp_path_factory.mktemp("bytes") / "bytes.gguf", add_bos=False)
    with Model(str(path), n_gpu_layers=0, on_progress=lambda _: True) as model:
        yield Acceptor(model, lambda text: [FIRST_BYTE + byte for byte in text.encode()])


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Iterator[Model]:
    """The real model's weights and vocabulary."""
    start_backend()
    with Model(str(smollm2_path), n_gpu_layers=0, on_progress=lambda _: True) as model:
        yield model


@pytest.fixture(scope="session")
def smollm2_grammars(smollm2: Model) -> Acceptor:
    """Grammars over the real model's vocabulary."""
    return Acceptor(smollm2)
