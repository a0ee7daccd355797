import os
from pathlib import Path

import pytest

from paddler.errors import ConfigError
from paddler.keys import Keys, read_key

ONE, TWO = "0123456789abcdef", "fedcba9876543210"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def keys(path: Path, text: str) -> Keys:
    path.write_text(text)
    return Keys(str(path), flag="--keys")


def test_a_key_has_the_name_beside_it_or_that_of_its_line(path: Path) -> None:
    known = keys(path, f"# teams\n\nsearch {ONE}\n  {TWO}  \n")
    assert len(known) == 2
    assert known.owner(ONE) == "search"
    assert known.owner(TWO) == "key-4"
    for other in ("", ONE[:-1], ONE + "0", "search", "\udcff", "é" * 16):
        assert known.owner(other) is None


def test_several_keys_may_have_one_name(path: Path) -> None:
    known = keys(path, f"search {ONE}\nsearch {TWO}\n")
    assert known.owner(ONE) == known.owner(TWO) == "search"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "lists no key"),
        ("# nothing\n", "lists no key"),
        ("short", "key of 5 characters in line 1: at least 16"),
        (f"a b {ONE}", "3 words in line 1"),
        (f"{ONE}\n{ONE}", "the key of line 2 twice"),
        ("é" * 16, "line 1 that is not printable ASCII"),
    ],
)
def test_what_is_no_file_of_keys_is_told_without_its_secrets(
    path: Path, text: str, what: str
) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        keys(path, text)
    assert str(caught.value).startswith(f"--keys: {path} ")
    assert not text or text not in str(caught.value)


def test_files_that_cannot_be_read_are_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Keys(str(path), flag="--keys")
    with pytest.raises(ConfigError, match="Is a directory"):
        Keys(str(tmp_path), flag="--keys")
    path.write_bytes(b"\xff" * 20)
    with pytest.raises(ConfigError, match="not UTF-8"):
        Keys(str(path), flag="--keys")


def test_a_reload_takes_what_is_there_now_or_leaves_what_was(path: Path) -> None:
    known = keys(path, f"a {ONE}\n")
    path.write_text(f"b {TWO}\n")
    known.reload()
    assert (known.owner(ONE), known.owner(TWO)) == (None, "b")
    path.write_text("broken")
    with pytest.raises(ConfigError):
        known.reload()
    assert known.owner(TWO) == "b"


def test_no_key_is_kept_as_it_is(path: Path) -> None:
    known = keys(path, f"a {ONE}\n")
    assert ONE not in repr(vars(known))


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o640, True), (0o604, True)])
def test_files_that_others_may_read_are_known(path: Path, mode: int, is_open: bool) -> None:
    known = keys(path, ONE)
    os.chmod(path, mode)
    assert known.is_open_to_others is is_open


def test_the_first_key_is_the_one_to_send(path: Path) -> None:
    path.write_text(f"# mine\nagents {ONE}\n{TWO}\n")
    assert read_key(str(path), flag="--token") == ONE
