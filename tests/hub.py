"""A server on the loopback interface that has files, as a web server has and as the Hub has.

Files lie at addresses; the Hub's names redirect to them, on a port of their own, as the real
one redirects to its CDN. Each has switches for what servers and networks do wrong.
"""

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_RANGE = re.compile(r"bytes=(\d+)-")
_PIECE = 1 << 16


@dataclass
class ServedFile:
    """A file at an address. Offsets count from the file's beginning, whatever was asked for."""

    content: bytes
    etag: str | None = '"first"'
    last_modified: str | None = None
    status: int | None = None  # answer this instead
    location: str | None = None  # redirect there
    holds_at: int | None = None  # send no byte from here on until ``go`` is set
    cuts_at: int | None = None  # close the connection here
    says_length: int | None = None  # instead of the truth
    has_length: bool = True  # False: chunked
    knows_ranges: bool = True
    obeys_if_range: bool = True
    range_starts_at: int | None = None  # instead of what was asked for
    go: threading.Event = field(default_factory=threading.Event)
    is_held: threading.Event = field(default_factory=threading.Event)
    ranges: list[str | None] = field(default_factory=list)  # of the GETs so far


@dataclass
class HubFile:
    """A name of a repository, at a commit."""

    commit: str
    served: ServedFile
    status: int | None = None
    error_code: str | None = None
    says_size: int | None = None
    is_plain: bool = False  # answers without the headers of the Hub


@dataclass(frozen=True)
class Seen:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]


def commit_of(revision: str) -> str:
    """What a revision stands for here."""
    return hashlib.sha1(revision.encode()).hexdigest()


class FileServer:
    """Use as ``with``. ``requests`` holds all that came in, on both ports."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self._files: dict[str, ServedFile] = {}
        self._names: dict[tuple[str, str, str], HubFile] = {}
        self._servers = [_Server(self), _Server(self)]

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for file in list(self._files.values()):
            file.go.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def endpoint(self) -> str:
        """What to set ``HF_ENDPOINT`` to."""
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    def url(self, path: str) -> str:
        """The address of a file."""
        return f"http://127.0.0.1:{self._servers[1].server_port}{path}"

    def add(self, path: str, content: bytes, **switches: Any) -> ServedFile:
        """Serve a file at ``path``."""
        self._files[path] = file = ServedFile(content, **switches)
        return file

    def add_to_hub(
        self,
        name: str,
        content: bytes,
        *,
        repo: str = "org/repo",
        revision: str = "main",
        commit: str | None = None,
        **switches: Any,
    ) -> HubFile:
        """Serve a file of a repository, at ``revision`` and at the commit that it stands for."""
        etag = hashlib.sha256(content).hexdigest()
        served = self.add(f"/cdn/{etag}", content, etag=f'"cdn-{etag[:8]}"', **switches)
        commit = commit or commit_of(revision)
        file = HubFile(commit, served)
        for known_as in (revision, commit):
            self._names[repo, known_as, name] = file
        return file

    def gets(self, part: str = "") -> list[Seen]:
        """The GETs whose path contains ``part``."""
        return [seen for seen in self.requests if seen.method == "GET" and part in seen.path]

    def file_at(self, path: str) -> ServedFile | None:
        return self._files.get(path)

    def hub_file(self, repo: str, revision: str, name: str) -> HubFile | None:
        return self._names.get((repo, revision, name))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, files: FileServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Tests look at ``requests``."""

    def _answer(self) -> None:
        files = self.server.files
        headers = {name.lower(): value for name, value in self.headers.items()}
        files.requests.append(Seen(self.command, self.path, headers))
        path = self.path.partition("?")[0]
        if (match := _RESOLVE.fullmatch(path)) is not None:
            name = (match["repo"], unquote(match["revision"]), unquote(match["name"]))
            self._resolve(files.hub_file(*name))
        elif (file := files.file_at(unquote(path))) is not None:
            self._serve(file, headers)
        else:
            self._refuse(404)

    def _resolve(self, file: HubFile | None) -> None:
        if file is None:
            self._refuse(404, "EntryNotFound")
            return
        if file.status is not None:
            self._refuse(file.status, file.error_code)
            return
        content = file.served.content
        etag = hashlib.sha256(content).hexdigest()
        self.send_response(302)
        self.send_header("location", self.server.files.url(f"/cdn/{etag}"))
        if not file.is_plain:
            size = len(content) if file.says_size is None else file.says_size
            self.send_header("x-repo-commit", file.commit)
            self.send_header("x-linked-etag", f'"{etag}"')
            self.send_header("x-linked-size", str(size))
        self.send_header("content-length", "0")
        self.end_headers()

    def _refuse(self, status: int, error_code: str | None = None) -> None:
        self.send_response(status)
        if error_code is not None:
            self.send_header("x-error-code", error_code)
        self.send_header("content-length", "0")
        self.end_headers()

    def _serve(self, file: ServedFile, headers: dict[str, str]) -> None:
        if self.command == "GET":
            file.ranges.append(headers.get("range"))
        if file.status is not None:
            self._refuse(file.status)
            return
        if file.location is not None:
            self.send_response(302)
            self.send_header("location", file.location)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        start = self._start(file, headers)
        size = len(file.content)
        if start is not None and start >= size:
            self._refuse(416)
            return
        self.send_response(200 if start is None else 206)
        if start is not None:
            says = start if file.range_starts_at is None else file.range_starts_at
            self.send_header("content-range", f"bytes {says}-{size - 1}/{size}")
        if file.etag is not None:
            self.send_header("etag", file.etag)
        if file.last_modified is not None:
            self.send_header("last-modified", file.last_modified)
        start = start or 0
        if file.has_length:
            length = size - start if file.says_length is None else file.says_length
            self.send_header("content-length", str(length))
        else:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if self.command == "GET":
            self._send_body(file, start)

    def _start(self, file: ServedFile, headers: dict[str, str]) -> int | None:
        """Where to start; ``None``: all of it."""
        match = _RANGE.fullmatch(headers.get("range", ""))
        if match is None or not file.knows_ranges:
            return None
        known = (None, file.etag, file.last_modified)
        if file.obeys_if_range and headers.get("if-range") not in known:
            return None
        return int(match[1])

    def _send_body(self, file: ServedFile, start: int) -> None:
        end = len(file.content) if file.cuts_at is None else file.cuts_at
        at = start
        while at < end:
            stop = min(at + _PIECE, end)
            if file.holds_at is not None and not file.go.is_set():
                if at >= file.holds_at:
                    file.is_held.set()
                    file.go.wait()
                else:
                    stop = min(stop, file.holds_at)
            self._send_piece(file.content[at:stop], is_chunked=not file.has_length)
            at = stop
        if file.cuts_at is not None or file.says_length is not None:
            self.close_connection = True
        elif not file.has_length:
            self.wfile.write(b"0\r\n\r\n")

    def _send_piece(self, piece: bytes, *, is_chunked: bool) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        self.wfile.flush()
