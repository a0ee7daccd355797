"""What operators asked for, what agents are told, and where it is kept.

The memory of this process is the truth; the database is written through and read once, at
start. A file is replaced whole (temporary file, fsync, rename, fsync of the folder), so
that a crash leaves the old state or the new one, and a lock beside it keeps a second
balancer away.
"""

import contextlib
import errno
import fcntl
import logging
import os
import stat
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from paddler.errors import PaddlerError, StartError
from paddler.messages.state import (
    DEFAULT_DESIRED_STATE,
    ApplicableState,
    DesiredState,
    model_for_logs,
)

log = logging.getLogger(__name__)

FILE_VERSION: Final = "1"


class StateNotStored(PaddlerError):
    """The new state could not be written; the old one stays in force."""

    status = 500
    code = "state_not_stored"


class StateFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state file's content. Any ``version`` string is accepted, ``"1"`` is written."""

    balancer_desired_state: DesiredState
    version: str = FILE_VERSION


class StateDatabase(Protocol):
    """Where the desired state survives a restart."""

    def load(self) -> DesiredState:
        """The stored state, or the default one; :class:`StartError` if it is unreadable."""
        ...

    def save(self, state: DesiredState) -> None:
        """Store ``state`` or raise :class:`StateNotStored`."""

    def close(self) -> None:
        """Let another balancer use the database."""


class MemoryDatabase:
    """Forgets at exit."""

    def load(self) -> DesiredState:
        """The default state."""
        return DEFAULT_DESIRED_STATE

    def save(self, state: DesiredState) -> None:
        """Nothing to do: the store itself is the memory."""

    def close(self) -> None:
        """Nothing to do."""


class FileDatabase:
    """One JSON file, locked by ``<path>.lock`` for the life of this object.

    A link is followed once, here, so that it stays one, and two names of a file have one lock.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path)
        # Before anything is made beside it: a device would be replaced, a pipe never be read.
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            raise StartError(f"--state-database: {self._path} is no regular file")
        self._lock_fd = self._lock()

    def load(self) -> DesiredState:
        """The file's state. A missing or empty file is a fresh start and is written."""
        try:
            with open(self._path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise StartError(
                f"--state-database: cannot read {self._path}: {error.strerror}"
            ) from error
        if not content.strip():
            log.warning("no state in %s yet: starting with the default state", self._path)
            try:
                self.save(DEFAULT_DESIRED_STATE)
            except StateNotStored as error:
                raise StartError(f"--state-database: {error}") from error
            return DEFAULT_DESIRED_STATE
        try:
            return parse_state_file(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise StartError(
                f"--state-database: {self._path} does not hold a state of this version: {error}. "
                "It was left as it is: repair it, or move it away to start with the default state"
            ) from error

    def save(self, state: DesiredState) -> None:
        """Replace the file; after a crash it holds the old state or the new one."""
        content = msgspec.json.format(msgspec.json.encode(StateFile(state)), indent=2) + b"\n"
        temporary = f"{self._path}.new"
        try:
            with open(temporary, "wb") as file:
                self._take_over_mode(file.fileno())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
            folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise StateNotStored(f"cannot write {self._path}: {error.strerror}") from error

    def _take_over_mode(self, fd: int) -> None:
        """Let nobody read the new file who could not read the old one, and its owner still do."""
        with contextlib.suppress(FileNotFoundError):
            old = os.stat(self._path)
            os.fchmod(fd, stat.S_IMODE(old.st_mode))
            with contextlib.suppress(OSError):  # only root may
                os.fchown(fd, old.st_uid, old.st_gid)

    def close(self) -> None:
        """Release the lock; the lock file stays, so that nobody locks a deleted one."""
        os.close(self._lock_fd)

    def _lock(self) -> int:
        path = f"{self._path}.lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartError(f"--state-database: cannot write {path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno != errno.EWOULDBLOCK:
                raise StartError(
                    f"--state-database: cannot lock {path}: {error.strerror}"
                ) from error
            raise StartError(
                f"--state-database: another balancer uses {self._path}; "
                "give each balancer a file of its own"
            ) from error
        return fd


def parse_state_file(content: bytes) -> DesiredState:
    """The state in a file, keys that it lacks filled in from the default state.

    Unknown keys are refused: a newer Paddler wrote them, and rewriting would lose them.
    """
    raw = msgspec.json.decode(content)
    if isinstance(raw, dict) and isinstance(raw.get("balancer_desired_state"), dict):
        raw["balancer_desired_state"] = fill_in(
            raw["balancer_desired_state"], msgspec.to_builtins(DEFAULT_DESIRED_STATE)
        )
    return msgspec.convert(raw, StateFile).balancer_desired_state


def fill_in(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """``values`` with what it lacks taken from ``defaults``, also within inner objects."""
    filled = {**defaults, **values}
    for key, default in defaults.items():
        if isinstance(default, dict) and isinstance(filled[key], dict):
            filled[key] = fill_in(filled[key], default)
    return filled


def open_database(url: str) -> StateDatabase:
    """The database that ``--state-database`` names."""
    if url.startswith("file://"):
        return FileDatabase(url.removeprefix("file://"))
    return MemoryDatabase()


def applicable(desired: DesiredState) -> ApplicableState:
    """What agents are told for ``desired``."""
    override = desired.chat_template_override if desired.use_chat_template_override else None
    return ApplicableState(
        chat_template_override=override,
        inference_parameters=desired.inference_parameters,
        model=desired.model,
        multimodal_projection=desired.multimodal_projection,
    )


class DesiredStateStore:
    """Owns the desired state.

    ``is_default``: nobody has asked for anything, here or in the database, so agents may
    keep what they run: this balancer may have lost its memory in a restart.
    """

    def __init__(self, database: StateDatabase) -> None:
        self._database = database
        self._desired = database.load()
        self._watchers: list[Callable[[], None]] = []
        self.applicable = applicable(self._desired)
        self.is_default = self._desired == DEFAULT_DESIRED_STATE

    @property
    def desired(self) -> DesiredState:
        """What operators asked for last."""
        return self._desired

    @property
    def is_embedding(self) -> bool:
        """Whether the fleet makes embeddings, and so no tokens."""
        return self.applicable.inference_parameters.enable_embeddings

    def put(self, desired: DesiredState) -> None:
        """Store a new state and tell whoever watches; an identical one changes nothing.

        :class:`StateNotStored`: it could not be kept, and the old one stays in force.
        """
        try:
            self._database.save(desired)
        except StateNotStored as error:
            log.error("%s; the state before stays in force", error)
            raise
        self._desired = desired
        newer = applicable(desired)
        if newer == self.applicable and not self.is_default:
            return
        self.applicable = newer
        self.is_default = False
        log.info("desired state changed: model %.1000s", model_for_logs(newer.model))
        for callback in self._watchers:
            callback()

    def watch(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each change of :attr:`applicable`, synchronously."""
        self._watchers.append(callback)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()
