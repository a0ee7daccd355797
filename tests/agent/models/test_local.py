"""Files that lie here already."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from paddler.agent.models.local import LocalFileMissing, find_model, find_projection


@pytest.mark.parametrize(
    ("find", "issue"),
    [
        (find_model, "ModelFileDoesNotExist"),
        (find_projection, "MultimodalProjectionCannotBeLoaded"),
    ],
)
def test_a_file_is_found_or_missed_under_the_name_it_was_given(
    tmp_path: Path, find: Callable[[str], str], issue: str
) -> None:
    path = str(tmp_path / "m.gguf")
    with pytest.raises(LocalFileMissing, match=r"m\.gguf") as caught:
        find(path)
    assert msgspec.to_builtins(caught.value.issue) == {issue: {"model_path": path}}
    Path(path).touch()
    assert find(path) == path


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize(
    ("find", "issue"),
    [
        (find_model, "ModelCannotBeLoaded"),
        (find_projection, "MultimodalProjectionCannotBeLoaded"),
    ],
)
def test_what_is_no_file_is_told_and_not_opened(
    tmp_path: Path, find: Callable[[str], str], issue: str, make: Callable[[str], None]
) -> None:
    path = str(tmp_path / "m.gguf")
    make(path)
    with pytest.raises(LocalFileMissing, match=r"not a file: .*m\.gguf") as caught:
        find(path)
    assert msgspec.to_builtins(caught.value.issue) == {issue: {"model_path": path}}
