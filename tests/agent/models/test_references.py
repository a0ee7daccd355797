"""From the desired state's words to a path, whatever the source."""

import asyncio
from pathlib import Path

import pytest

from paddler.agent.models.causes import ModelUnavailable
from paddler.agent.models.references import is_elsewhere, obtain_model, obtain_projection
from paddler.messages.state import HuggingFaceModel, ModelReference, ModelSource, UrlModel
from tests.agent.models.ggufs import gguf_bytes
from tests.hub import FileServer

CONTENT = gguf_bytes(1000)


def obtain(reference: ModelReference) -> str | None:
    return asyncio.run(obtain_model(reference, lambda event: None))


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: FileServer) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("PADDLER_CACHE_DIR", str(tmp_path / "cache"))


def test_no_model_is_no_path() -> None:
    assert obtain("None") is None
    assert not is_elsewhere("None")


def test_a_local_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.touch()
    reference = ModelSource(local_to_agent=str(path))
    assert obtain(reference) == str(path)
    assert not is_elsewhere(reference)


def test_a_hub_file_is_downloaded(server: FileServer) -> None:
    server.add_to_hub("m.gguf", CONTENT)
    hub = HuggingFaceModel(repo_id="org/repo", revision="main", filename="m.gguf")
    reference = ModelSource(hugging_face=hub)
    assert is_elsewhere(reference)
    path = obtain(reference)
    assert path is not None
    assert Path(path).read_bytes() == CONTENT


def test_a_file_behind_an_address_is_downloaded(server: FileServer) -> None:
    server.add("/m.gguf", CONTENT)
    reference = ModelSource(url=UrlModel(server.url("/m.gguf")))
    assert is_elsewhere(reference)
    path = obtain(reference)
    assert path is not None
    assert Path(path).read_bytes() == CONTENT


def test_a_projection_may_come_from_anywhere_too(server: FileServer, tmp_path: Path) -> None:
    server.add("/m.gguf", CONTENT)
    path = tmp_path / "m.gguf"
    path.touch()
    for reference in (
        ModelSource(url=UrlModel(server.url("/m.gguf"))),
        ModelSource(local_to_agent=str(path)),
    ):
        assert asyncio.run(obtain_projection(reference, lambda event: None)) is not None
    with pytest.raises(ModelUnavailable, match="projection"):
        asyncio.run(obtain_projection(ModelSource(local_to_agent="/no.gguf"), print))
