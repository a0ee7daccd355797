"""Bytes from a real server into a real file, with everything that goes wrong on the way."""

import hashlib
import os
import resource
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddler.agent.models.causes import Cause, SourceFailed
from paddler.agent.models.transfer import Partial, Source, Validator, receive
from tests.agent.models.ggufs import gguf_bytes
from tests.hub import FileServer

SIZE = 300_000
CONTENT = gguf_bytes(SIZE)
OTHER = gguf_bytes(SIZE, seed=2)


class Download:
    """One file to fetch, over as many tries as a test makes."""

    def __init__(self, server: FileServer, folder: Path, content: bytes = CONTENT) -> None:
        self.file = server.add("/model.gguf", content)
        self.partial = Partial(folder / "model.partial")
        self.url = server.url("/model.gguf")
        self.progress: list[tuple[int, int | None]] = []

    def run(self, **options: Any) -> None:
        source = Source(url=options.pop("url", self.url), headers={}, **options)
        receive(source, self.partial, lambda *now: self.progress.append(now), idle_timeout_s=5)

    def fails(self, **options: Any) -> Cause:
        with pytest.raises(SourceFailed) as caught:
            self.run(**options)
        return caught.value.cause

    @property
    def here(self) -> bytes:
        return self.partial.path.read_bytes()


@pytest.fixture
def download(server: FileServer, tmp_path: Path) -> Download:
    return Download(server, tmp_path)


def test_a_file_arrives_whole_and_its_progress_is_told(download: Download) -> None:
    download.run()
    assert download.here == CONTENT
    assert download.progress[0] == (0, SIZE)
    assert download.progress[-1] == (SIZE, SIZE)


def test_a_file_of_unknown_length_arrives_whole(download: Download) -> None:
    download.file.has_length = False
    download.run()
    assert download.here == CONTENT
    assert download.progress[-1] == (SIZE, None)


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (401, Cause.DENIED),
        (403, Cause.DENIED),
        (404, Cause.MISSING),
        (400, Cause.REJECTED),
        (429, Cause.REJECTED),
        (204, Cause.ERRORED),
        (304, Cause.ERRORED),
        (500, Cause.ERRORED),
        (503, Cause.ERRORED),
    ],
)
def test_a_status_that_brings_nothing_has_its_cause(
    download: Download, status: int, cause: Cause
) -> None:
    download.file.status = status
    assert download.fails() is cause
    assert not download.partial.path.exists()


def test_what_broke_off_is_resumed_where_it_ended(download: Download) -> None:
    download.file.cuts_at = 100_000
    assert download.fails() is Cause.INTERRUPTED
    assert download.here == CONTENT[:100_000]
    download.file.cuts_at = None
    download.progress.clear()
    download.run()
    assert download.here == CONTENT
    assert download.file.ranges == [None, "bytes=100000-"]
    assert download.progress[0] == (100_000, SIZE)


def test_a_server_that_sends_less_of_the_rest_is_asked_again(download: Download) -> None:
    download.file.cuts_at = 100_000
    download.fails()
    download.file.cuts_at = None
    download.file.says_length = 50_000
    assert download.fails() is Cause.INTERRUPTED
    download.file.says_length = None
    download.run()
    assert download.here == CONTENT
    assert download.file.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_what_somebody_else_began_is_resumed(download: Download) -> None:
    download.partial.path.write_bytes(CONTENT[:50_000])
    download.run()
    assert download.here == CONTENT
    assert download.file.ranges == ["bytes=50000-"]


def test_a_body_that_stalls_is_an_interruption(server: FileServer, tmp_path: Path) -> None:
    download = Download(server, tmp_path)
    download.file.holds_at = 100_000
    with pytest.raises(SourceFailed) as caught:
        receive(
            Source(url=download.url, headers={}),
            download.partial,
            lambda *_: None,
            idle_timeout_s=1,
        )
    assert caught.value.cause is Cause.INTERRUPTED
    assert download.here == CONTENT[:100_000]


@pytest.mark.parametrize(
    ("says", "cause"),
    [
        (SIZE + 1, Cause.INTERRUPTED),  # less comes than was said
        (SIZE - 1, None),  # what comes beyond what was said belongs to nobody
    ],
)
def test_a_body_is_as_long_as_the_server_says(
    download: Download, says: int, cause: Cause | None
) -> None:
    download.file.says_length = says
    if cause is None:
        download.run()
        assert len(download.here) == says
    else:
        assert download.fails() is cause


def test_a_file_of_another_length_than_promised_is_not_even_begun(download: Download) -> None:
    assert download.fails(total=SIZE + 7) is Cause.INTERRUPTED
    assert not download.partial.path.exists()


@pytest.mark.parametrize("obeys", [True, False])
def test_a_file_that_changed_on_the_server_is_started_over(download: Download, obeys: bool) -> None:
    download.file.cuts_at = 100_000
    download.fails()
    download.file.content, download.file.etag = OTHER, '"second"'
    download.file.cuts_at = None
    download.file.obeys_if_range = obeys
    download.run()
    assert download.here == OTHER


YESTERDAY = "Mon, 05 Jan 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("etag", "last_modified", "if_range"),
    [
        ('"strong"', YESTERDAY, '"strong"'),
        ('W/"weak"', YESTERDAY, YESTERDAY),
        ('W/"weak"', None, None),
        (None, None, None),
    ],
)
def test_the_server_is_asked_for_the_rest_of_the_same_file(
    server: FileServer,
    download: Download,
    etag: str | None,
    last_modified: str | None,
    if_range: str | None,
) -> None:
    download.file.etag, download.file.last_modified = etag, last_modified
    download.file.cuts_at = 100_000
    download.fails()
    download.file.cuts_at = None
    download.run()
    assert download.here == CONTENT
    assert [seen.headers.get("if-range") for seen in server.requests] == [None, if_range]


def test_a_file_that_only_changed_its_length_is_started_over(download: Download) -> None:
    download.file.etag = None
    download.file.cuts_at = 100_000
    download.fails()
    download.file.content = OTHER + b"more"
    download.file.cuts_at = None
    download.run()
    assert download.here == OTHER + b"more"


def test_a_server_that_knows_no_ranges_sends_it_all_again(download: Download) -> None:
    download.file.cuts_at = 100_000
    download.fails()
    download.file.cuts_at = None
    download.file.knows_ranges = False
    download.run()
    assert download.here == CONTENT


@pytest.mark.parametrize("starts_at", [0, 99_999])
def test_bytes_from_elsewhere_than_asked_delete_what_is_here(
    download: Download, starts_at: int
) -> None:
    download.file.cuts_at = 100_000
    download.fails()
    download.file.cuts_at = None
    download.file.range_starts_at = starts_at
    assert download.fails() is Cause.CORRUPTED
    assert not download.partial.path.exists()
    download.file.range_starts_at = None
    download.run()
    assert download.here == CONTENT


def test_what_reaches_beyond_the_servers_file_is_deleted(download: Download) -> None:
    download.partial.path.write_bytes(CONTENT + b"more")
    assert download.fails() is Cause.CORRUPTED
    download.run()
    assert download.here == CONTENT


def test_what_is_whole_already_is_not_asked_for(download: Download) -> None:
    download.partial.path.write_bytes(CONTENT)
    download.partial.remember(Validator(etag='"first"', total=SIZE))
    download.run()
    assert download.file.ranges == []
    assert download.progress == [(SIZE, SIZE)]


@pytest.mark.parametrize("content", [b"<html>Sign in</html>" * 9999, b"", b"GG", b"GGUx"])
def test_what_is_no_model_leaves_nothing_behind(
    server: FileServer, tmp_path: Path, content: bytes
) -> None:
    download = Download(server, tmp_path, content)
    assert download.fails() is Cause.NO_MODEL
    assert list(tmp_path.iterdir()) == []


def test_what_is_here_and_no_models_beginning_is_deleted(download: Download) -> None:
    download.partial.path.write_bytes(b"<html>Sign in</html>")
    assert download.fails() is Cause.CORRUPTED
    download.run()
    assert download.here == CONTENT


@pytest.mark.parametrize("resumes", [False, True])
def test_a_content_is_checked_against_its_promised_hash(download: Download, resumes: bool) -> None:
    promised = hashlib.sha256(CONTENT).hexdigest()
    if resumes:
        download.partial.path.write_bytes(b"GGUF" + bytes(1000))
    else:
        download.file.content = OTHER
    assert download.fails(sha256=promised) is Cause.CORRUPTED
    assert not download.partial.path.exists()
    download.file.content = CONTENT
    download.run(sha256=promised)
    assert download.here == CONTENT


def test_redirects_are_followed_until_they_go_in_circles(
    server: FileServer, download: Download
) -> None:
    server.add("/moved.gguf", b"", location=download.url)
    download.run(url=server.url("/moved.gguf"))
    assert download.here == CONTENT
    server.add("/circle.gguf", b"", location=server.url("/circle.gguf"))
    download.partial.discard()
    assert download.fails(url=server.url("/circle.gguf")) is Cause.UNREACHABLE


def test_a_port_that_nobody_listens_on_is_unreachable(download: Download) -> None:
    assert download.fails(url="http://127.0.0.1:1/model.gguf") is Cause.UNREACHABLE


def test_a_server_that_accepts_and_says_nothing_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/model.gguf"
        with pytest.raises(SourceFailed) as caught:
            receive(
                Source(url=url, headers={}),
                Partial(tmp_path / "p"),
                lambda *_: None,
                idle_timeout_s=0.1,
            )
    assert caught.value.cause is Cause.UNREACHABLE


def test_a_full_disk_is_told_as_one(download: Download) -> None:
    # Linux's own full disk: writing there fails with ENOSPC.
    download.partial.path.symlink_to("/dev/full")
    assert download.fails() is Cause.FULL


def test_a_file_above_the_processs_limit_counts_as_a_full_disk(download: Download) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert download.fails() is Cause.FULL
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    download.run()
    assert download.here == CONTENT


def test_the_environments_proxy_is_used(
    server: FileServer, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.endpoint)
    server.add("http://models.invalid/model.gguf", CONTENT)
    download.run(url="http://models.invalid/model.gguf")
    assert download.here == CONTENT


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "gopher://127.0.0.1:1", "http://[::"])
def test_a_proxy_that_cannot_be_used_is_told(
    download: Download, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    assert download.fails() is Cause.UNREACHABLE


class TlsServer:
    """Answers one request over TLS, with a certificate that nobody knows."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "certificate.pem"
        key = folder / "key.pem"
        command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2"]
        names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
        files = ("-keyout", str(key), "-out", str(self.certificate))
        subprocess.run([*command, *names, *files], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._socket.getsockname()[1]}/model.gguf"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode()
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(4096)
                    secure.sendall(head + CONTENT)
            except ssl.SSLError:
                continue  # a client that does not trust us

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path)
    yield server
    server.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_https_is_spoken_with_servers_that_can_be_trusted(
    tls: TlsServer, download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert download.fails(url=tls.url) is Cause.UNREACHABLE
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
    download.run(url=tls.url)
    assert download.here == CONTENT


def test_a_published_file_is_there_at_once_and_leaves_no_note(
    download: Download, tmp_path: Path
) -> None:
    download.run()
    download.partial.publish(tmp_path / "model")
    assert (tmp_path / "model").read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["model"]
