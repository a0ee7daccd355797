"""Where files from addresses are kept."""

import hashlib
from pathlib import Path

import pytest

from paddler.agent.models.url_cache import Entry, cache_root

URL = "https://models.example/m.gguf"


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"PADDLER_CACHE_DIR": "/p", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/p"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/paddler"),
        ({"HOME": "/h"}, "/h/.cache/paddler"),
        ({"PADDLER_CACHE_DIR": "", "HOME": "/h"}, "."),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "paddler"),
        ({"HOME": ""}, ".cache/paddler"),
    ],
)
def test_the_first_variable_that_is_set_names_the_cache(environ: dict[str, str], root: str) -> None:
    assert cache_root(environ) == Path(root)


def test_without_any_variable_there_is_no_cache() -> None:
    assert cache_root({}) is None


def test_the_files_of_an_address_are_named_by_its_hash() -> None:
    digest = hashlib.sha256(URL.encode()).hexdigest()
    folder = Path("/cache/downloaded-models")
    entry = Entry(Path("/cache"), URL)
    assert entry.path == folder / digest
    assert entry.partial == folder / f"{digest}.partial"
    assert entry.lock == folder / f"{digest}.lock"


def test_parts_have_their_names_in_a_folder_of_links(tmp_path: Path) -> None:
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    entries = [Entry(tmp_path, f"https://models.example/{name}") for name in names]
    entries[0].path.parent.mkdir()
    for number, entry in enumerate(entries):
        entry.path.write_text(f"part {number}")
    entries[0].parts.mkdir()
    (entries[0].parts / names[1]).symlink_to("../elsewhere")
    for _ in range(2):
        first = entries[0].link_parts(names, entries)
        assert first.read_text() == "part 0"
        assert (first.parent / names[1]).read_text() == "part 1"
