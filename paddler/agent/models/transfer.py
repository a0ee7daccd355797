"""Bytes from a server into a file: resumed where an earlier try ended, checked, and whole at last.

    partial file ── nothing there ──► GET ───────────────── 200 ──► write from the start
        │                                                             │
        └── n bytes ──► GET, Range: bytes=n-, If-Range ── 206 ──► append ──► whole? ──► done
                             └─ 200, or it is another file now ──► start over

What breaks off keeps its bytes for the next try. What can never become the file that was
asked for is deleted, so that the next try starts over. The process may be killed at any
point. Whoever calls holds the file's lock.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NoReturn

import httpx2
import msgspec

from paddler import __version__
from paddler.agent.models.causes import Cause, SourceFailed, storage_errors

MAGIC: Final = b"GGUF"  # the first bytes of every GGUF file, of either byte order
IDLE_TIMEOUT_S: Final = 10.0
"""For a connection, for an answer to begin, and between two pieces of a body."""

_MAX_REDIRECTS: Final = 10
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

OnProgress = Callable[[int, int | None], None]
"""Takes the bytes that are here, those of earlier tries included, and all there will be."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask for, and what is known of it beforehand."""

    url: str
    headers: Mapping[str, str]
    total: int | None = None
    sha256: str | None = None  # lowercase hex


class Validator(msgspec.Struct, frozen=True):
    """What a server said of the file whose beginning we have: tells whether it is still that."""

    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def if_range(self) -> str | None:
        """For the header of that name. RFC 9110 §13.1.5: a weak entity tag will not do."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def differs_from(self, other: "Validator") -> bool:
        """Whether both say something of the same thing, and not the same."""
        ours, theirs = (self.etag, self.total), (other.etag, other.total)
        return any(
            a != b for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None
        )


class Partial:
    """A file that is not whole yet, and what the server said when it began.

    ``is_one_content``: its name stands for one content, so there is nothing to remember.
    """

    __slots__ = ("_note", "is_one_content", "path")

    def __init__(self, path: Path, *, is_one_content: bool = False) -> None:
        self.path = path
        self.is_one_content = is_one_content
        self._note = path.with_name(f"{path.name}.etag")

    def size(self) -> int:
        """Bytes that are here."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def validator(self) -> Validator:
        """What was remembered; empty for a file that somebody else began."""
        if self.is_one_content:
            return Validator()
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=Validator)
        except (FileNotFoundError, msgspec.DecodeError):
            return Validator()

    def remember(self, validator: Validator) -> None:
        """Before the first byte, so that no byte is ever taken for another file's."""
        if not self.is_one_content:
            self._note.write_bytes(msgspec.json.encode(validator))

    def discard(self) -> None:
        """Delete what is here."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def publish(self, path: Path) -> None:
        """Make it the file at ``path``, at once and for good. It must be on the disk."""
        self.path.replace(path)
        self._note.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class _AnotherFile(Exception):
    """What is here is the beginning of something else."""


def is_gguf(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as models do; :class:`OSError` if it cannot be read."""
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def receive(
    source: Source,
    partial: Partial,
    on_progress: OnProgress,
    *,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
) -> None:
    """Bring ``partial`` to what ``source`` is, on the disk; :class:`SourceFailed` otherwise."""
    with _client(source, idle_timeout_s) as client, storage_errors():
        try:
            _receive(client, source, partial, on_progress)
        except _AnotherFile:
            partial.discard()
            _receive(client, source, partial, on_progress)


def _client(source: Source, idle_timeout_s: float) -> httpx2.Client:
    # Bytes are counted, so they must come as they are.
    headers = {"user-agent": f"paddler/{__version__}"} | dict(source.headers)
    headers["accept-encoding"] = "identity"
    try:
        return httpx2.Client(
            headers=headers,
            timeout=idle_timeout_s,
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
        )
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
        raise SourceFailed(
            Cause.UNREACHABLE, f"a proxy or certificate that the environment names: {error}"
        ) from error


def _receive(
    client: httpx2.Client, source: Source, partial: Partial, on_progress: OnProgress
) -> None:
    offset = partial.size()
    known = partial.validator() if offset else Validator()
    total = source.total if source.total is not None else known.total
    if offset and (offset < len(MAGIC) or (total is not None and offset > total)):
        raise _AnotherFile
    if offset and not is_gguf(partial.path):
        partial.discard()
        raise SourceFailed(Cause.CORRUPTED, f"{partial.path} does not begin as a GGUF file")
    digest = _Digest(source.sha256)
    if offset:
        digest.read(partial.path)
    if offset and offset == total:  # An earlier try was killed after its last byte.
        on_progress(offset, total)
        digest.check(partial)
        return
    with _answer(client, source, offset, known) as response:
        start, found = _beginning(response, offset, known, partial)
        total = _agreed_total(source.total, found.total if start == 0 else found.total or total)
        if start == 0:
            digest.reset()
            partial.remember(found)
        received = _write_body(response, partial, start, total, digest, on_progress)
    if total is not None and received != total:
        raise SourceFailed(Cause.INTERRUPTED, f"the body ended after {received} of {total} bytes")
    if received < len(MAGIC):
        _refuse(partial)
    digest.check(partial)


@contextlib.contextmanager
def _answer(
    client: httpx2.Client, source: Source, offset: int, known: Validator
) -> Iterator[httpx2.Response]:
    """The answer to a GET, its body yet to come; a network error in the block is told as one."""
    headers = {}
    if offset:
        headers["range"] = f"bytes={offset}-"
        if known.if_range is not None:
            headers["if-range"] = known.if_range
    with contextlib.ExitStack() as closing:
        try:
            response = closing.enter_context(client.stream("GET", source.url, headers=headers))
        except httpx2.RequestError as error:
            raise SourceFailed(Cause.UNREACHABLE, describe(error)) from error
        try:
            yield response
        except httpx2.RequestError as error:
            raise SourceFailed(Cause.INTERRUPTED, describe(error)) from error


def describe(error: Exception) -> str:
    """A network error's text; some have none of their own."""
    return str(error) or type(error).__name__


def cause_of_status(status: int) -> Cause:
    """Why a server that answered with ``status`` gives nothing."""
    match status:
        case 401 | 403:
            return Cause.DENIED
        case 404:
            return Cause.MISSING
        case 416:
            return Cause.CORRUPTED  # what is here reaches beyond what is there
        case _:
            return Cause.REJECTED if 400 <= status < 500 else Cause.ERRORED


def _beginning(
    response: httpx2.Response, offset: int, known: Validator, partial: Partial
) -> tuple[int, Validator]:
    """Where in the file the body starts, and what the server says of the file."""
    status = response.status_code
    headers = response.headers
    length = headers.get("content-length", "")
    total = int(length) if length.isdecimal() else None
    start = 0
    if status == 206:
        content_range = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if content_range is None or int(content_range[1]) != offset:
            partial.discard()
            text = headers.get("content-range", "no range")
            raise SourceFailed(
                Cause.CORRUPTED, f"asked for bytes from {offset}, the server sent {text}"
            )
        start = offset
        total = None if content_range[2] == "*" else int(content_range[2])
    elif status != 200:
        cause = cause_of_status(status)
        if cause is Cause.CORRUPTED:
            partial.discard()
        raise SourceFailed(cause, f"the server answered {status} {response.reason_phrase}")
    found = Validator(headers.get("etag"), headers.get("last-modified"), total)
    if start and found.differs_from(known) and not partial.is_one_content:
        raise _AnotherFile
    return start, found


def _agreed_total(promised: int | None, found: int | None) -> int | None:
    if promised is None or found is None or promised == found:
        return found if promised is None else promised
    raise SourceFailed(
        Cause.INTERRUPTED, f"the file has {promised} bytes, the server would send {found}"
    )


def _write_body(
    response: httpx2.Response,
    partial: Partial,
    start: int,
    total: int | None,
    digest: "_Digest",
    on_progress: OnProgress,
) -> int:
    """Write the body to the disk; how many bytes of the file are here then."""
    received = start
    head = MAGIC if start else b""
    # No buffer: what is counted is what the system took, also where the disk gets full.
    with open(partial.path, "ab" if start else "wb", buffering=0) as file:
        on_progress(received, total)
        for chunk in response.iter_raw():
            if len(head) < len(MAGIC):
                head = (head + chunk)[: len(MAGIC)]
                if not MAGIC.startswith(head):
                    # While it is a few bytes, not many gigabytes.
                    _refuse(partial)
            digest.update(chunk)
            unwritten = memoryview(chunk)
            while unwritten:
                written = file.write(unwritten)
                unwritten = unwritten[written:]
                received += written
                on_progress(received, total)
        os.fsync(file.fileno())
    return received


def _refuse(partial: Partial) -> NoReturn:
    partial.discard()
    raise SourceFailed(Cause.NO_MODEL, "what the server sends is no GGUF file")


class _Digest:
    """The SHA-256 of what is received, where the source says what it must be."""

    def __init__(self, expected: str | None) -> None:
        self._expected = expected
        self._hash = hashlib.sha256()

    def reset(self) -> None:
        """Start over."""
        self._hash = hashlib.sha256()

    def read(self, path: Path) -> None:
        """Take in what is there already."""
        if self._expected is not None:
            with open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    self._hash.update(chunk)

    def update(self, chunk: bytes) -> None:
        """Take in what came."""
        if self._expected is not None:
            self._hash.update(chunk)

    def check(self, partial: Partial) -> None:
        """Delete the file and fail if it is not what it must be."""
        if self._expected is not None and self._hash.hexdigest() != self._expected:
            partial.discard()
            raise SourceFailed(
                Cause.CORRUPTED, f"the file's SHA-256 is {self._hash.hexdigest()}, not as promised"
            )
