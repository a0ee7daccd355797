"""What operators asked for: kept, told, and never lost or damaged."""

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paddler.balancer.desired_state import (
    DesiredStateStore,
    FileDatabase,
    MemoryDatabase,
    StateDatabase,
    StateNotStored,
    applicable,
    open_database,
    parse_state_file,
)
from paddler.errors import StartError
from paddler.messages.state import (
    DEFAULT_DESIRED_STATE,
    ChatTemplate,
    DesiredState,
    ModelSource,
)

STATE = msgspec.structs.replace(
    DEFAULT_DESIRED_STATE, model=ModelSource(local_to_agent="/models/a.gguf")
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def reopened(path: Path) -> DesiredState:
    database = FileDatabase(str(path))
    try:
        return database.load()
    finally:
        database.close()


def file_with(**changes: Any) -> bytes:
    state = msgspec.to_builtins(DEFAULT_DESIRED_STATE)
    return json.dumps({"version": "1", "balancer_desired_state": state | changes}).encode()


# --- databases ----------------------------------------------------------------------------------


def test_a_database_is_chosen_by_its_address(path: Path) -> None:
    assert isinstance(open_database("memory://"), MemoryDatabase)
    database = open_database(f"file://{path}")
    assert isinstance(database, FileDatabase)
    database.close()


def test_memory_starts_anew() -> None:
    database = MemoryDatabase()
    database.save(STATE)
    database.close()
    assert database.load() == DEFAULT_DESIRED_STATE


def test_a_file_keeps_the_state(path: Path) -> None:
    database = FileDatabase(str(path))
    database.save(STATE)
    database.close()
    assert reopened(path) == STATE


def test_a_file_is_readable_json_with_a_version(path: Path) -> None:
    database = FileDatabase(str(path))
    database.save(STATE)
    database.close()
    content = path.read_text()
    assert content.endswith("}\n")
    assert len(content.splitlines()) > 10
    assert json.loads(content) == {
        "version": "1",
        "balancer_desired_state": msgspec.to_builtins(STATE),
    }


@pytest.mark.parametrize("content", [None, b"", b" \n"])
def test_a_missing_or_empty_file_is_a_fresh_start_and_written(
    path: Path, content: bytes | None
) -> None:
    if content is not None:
        path.write_bytes(content)
    assert reopened(path) == DEFAULT_DESIRED_STATE
    assert parse_state_file(path.read_bytes()) == DEFAULT_DESIRED_STATE


def test_a_save_replaces_the_file_whole_and_leaves_nothing_else(path: Path) -> None:
    database = FileDatabase(str(path))
    database.save(DEFAULT_DESIRED_STATE)
    with path.open("rb") as before:  # a reader of the old file is not disturbed
        database.save(STATE)
        assert parse_state_file(before.read()) == DEFAULT_DESIRED_STATE
    assert parse_state_file(path.read_bytes()) == STATE
    assert sorted(os.listdir(path.parent)) == ["state.json", "state.json.lock"]
    database.close()


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"version":"1"}',
        b'{"version":1,"balancer_desired_state":{}}',
        b'{"version":"1","balancer_desired_state":[]}',
        b'{"version":"1","balancer_desired_state":{"model":"\xff"}}',
        b'{"version":"1","balancer_desired_state":' + b"[" * 100_000,
        file_with(from_a_newer_version=True),
        file_with(inference_parameters={"from_a_newer_version": 1}),
        file_with(inference_parameters={"temperature": -1}),
        file_with(inference_parameters=None),
        file_with(model={"LocalToAgent": "/a", "Url": {"url": "https://a"}}),
        file_with()[:-1] + b',"from_a_newer_version":1}',
    ],
)
def test_a_file_that_makes_no_sense_is_refused_and_left_as_it_is(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(StartError, match=r"does not hold a state .* left as it is"):
        reopened(path)
    assert path.read_bytes() == content


def test_keys_that_an_older_file_lacks_take_their_defaults(path: Path) -> None:
    path.write_bytes(
        b'{"version":"0","balancer_desired_state":{"inference_parameters":{"top_k":7},'
        b'"model":{"LocalToAgent":"/models/a.gguf"}}}'
    )
    parameters = msgspec.structs.replace(DEFAULT_DESIRED_STATE.inference_parameters, top_k=7)
    assert reopened(path) == msgspec.structs.replace(STATE, inference_parameters=parameters)


def test_a_second_balancer_cannot_have_the_same_file(path: Path) -> None:
    database = FileDatabase(str(path))
    with pytest.raises(StartError, match=f"another balancer uses {path}"):
        FileDatabase(str(path))
    database.close()
    FileDatabase(str(path)).close()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"--state-database: cannot write .*No such file"):
        FileDatabase(str(tmp_path / "missing" / "state.json"))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_regular_file_is_refused_and_left_alone(
    path: Path, make: Callable[[Path], object]
) -> None:
    make(path)
    with pytest.raises(StartError, match=f"--state-database: {path} is no regular file"):
        FileDatabase(str(path))
    assert os.listdir(path.parent) == ["state.json"]


def test_a_link_stays_one_and_shares_the_lock_of_its_file(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "real.json"
    path.symlink_to(target)
    database = FileDatabase(str(path))
    database.save(STATE)
    assert path.is_symlink()
    with pytest.raises(StartError, match=f"another balancer uses {target}"):
        FileDatabase(str(target))
    database.close()
    assert reopened(target) == STATE


def test_who_could_not_read_the_old_file_cannot_read_the_new_one(path: Path) -> None:
    database = FileDatabase(str(path))
    database.save(DEFAULT_DESIRED_STATE)
    path.chmod(0o640)
    owner = 12_345 if os.geteuid() == 0 else os.geteuid()  # only root may give files away
    os.chown(path, owner, -1)
    database.save(STATE)
    database.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_uid == owner


def test_a_folder_that_knows_no_locks_is_told_from_another_balancer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(StartError, match=r"cannot lock .*state\.json\.lock: No locks available"):
        FileDatabase(str(path))


def test_a_state_that_cannot_be_written_leaves_the_old_file(path: Path) -> None:
    database = FileDatabase(str(path))
    database.save(STATE)
    blocker = path.parent / "state.json.new"
    blocker.mkdir()  # also for root, whom no file mode stops
    with pytest.raises(StateNotStored, match=f"cannot write {path}: Is a directory"):
        database.save(DEFAULT_DESIRED_STATE)
    database.close()
    assert reopened(path) == STATE


def test_a_fresh_file_that_cannot_be_written_stops_the_start(path: Path) -> None:
    (path.parent / "state.json.new").mkdir()
    with pytest.raises(StartError, match=f"--state-database: cannot write {path}"):
        reopened(path)


# --- what agents are told -----------------------------------------------------------------------


@pytest.mark.parametrize("is_used", [True, False])
def test_agents_get_the_template_only_if_it_is_to_be_used(is_used: bool) -> None:
    template = ChatTemplate("{{ x }}")
    desired = msgspec.structs.replace(
        STATE, chat_template_override=template, use_chat_template_override=is_used
    )
    told = applicable(desired)
    assert told.chat_template_override == (template if is_used else None)
    assert told.model == desired.model
    assert told.inference_parameters == desired.inference_parameters


class Telling:
    """A store whose announcements are counted."""

    def __init__(self, database: StateDatabase | None = None) -> None:
        self.store = DesiredStateStore(database or MemoryDatabase())
        self.told = 0
        self.store.watch(self._count)

    def _count(self) -> None:
        self.told += 1


def test_a_new_state_is_told_at_once() -> None:
    telling = Telling()
    telling.store.put(STATE)
    assert telling.told == 1
    assert telling.store.desired == STATE
    assert telling.store.applicable == applicable(STATE)


def test_an_identical_state_is_told_to_nobody() -> None:
    telling = Telling()
    telling.store.put(STATE)
    telling.store.put(STATE)
    telling.store.put(msgspec.structs.replace(STATE, chat_template_override=ChatTemplate("off")))
    assert telling.told == 1


def test_asking_for_the_default_state_is_asking() -> None:
    telling = Telling()
    assert telling.store.is_default
    telling.store.put(DEFAULT_DESIRED_STATE)
    assert not telling.store.is_default
    telling.store.put(DEFAULT_DESIRED_STATE)
    assert telling.told == 1


def test_a_stored_state_was_asked_for(path: Path) -> None:
    database = FileDatabase(str(path))
    database.save(STATE)
    telling = Telling(database)
    assert not telling.store.is_default
    assert telling.store.desired == STATE
    telling.store.close()


def test_a_state_that_is_not_stored_is_not_in_force(path: Path) -> None:
    telling = Telling(FileDatabase(str(path)))
    (path.parent / "state.json.new").mkdir()
    with pytest.raises(StateNotStored):
        telling.store.put(STATE)
    assert telling.told == 0
    assert telling.store.desired == DEFAULT_DESIRED_STATE
    assert telling.store.is_default
    telling.store.close()


@pytest.mark.parametrize("is_on", [True, False])
def test_embeddings_rule_out_tokens(is_on: bool) -> None:
    telling = Telling()
    parameters = msgspec.structs.replace(STATE.inference_parameters, enable_embeddings=is_on)
    telling.store.put(msgspec.structs.replace(STATE, inference_parameters=parameters))
    assert telling.store.is_embedding is is_on
