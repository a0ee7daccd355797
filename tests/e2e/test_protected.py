"""A fleet that asks for keys and speaks TLS, as an operator would set it up."""

import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import trustme

from tests.e2e.fleet import Process, free_ports, wait_until
from tests.tiny_gguf import write_tiny_gguf

KEY, TOKEN = "key-of-the-search-team", "token-of-the-operators"


class Protected:
    """A balancer whose listeners all speak TLS, and an agent that dials it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.authority, self.clients = trustme.CA(), trustme.CA()
        self.ca, self.client_ca = folder / "ca.pem", folder / "client-ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.clients.cert_pem.write_to_path(self.client_ca)
        self.issue(self.authority, "server")
        self.issue(self.clients, "agent")
        self.keys, self.token = folder / "keys", folder / "token"
        self.keys.write_text(f"search {KEY}\n")
        self.token.write_text(f"ops {TOKEN}\n")
        for path in (self.keys, self.token):
            path.chmod(0o600)
        self.management, self.inference, self.openai, self.panel = free_ports(4)
        flags = []
        for name, port in (
            ("management", self.management),
            ("inference", self.inference),
            ("compat-openai", self.openai),
            ("web-admin-panel", self.panel),
        ):
            flags += [f"--{name}-addr", f"localhost:{port}"]
            flags += [f"--{name}-tls-cert", str(folder / "server.pem")]
            flags += [f"--{name}-tls-key", str(folder / "server.key")]
        self.balancer = Process(
            [
                "balancer",
                *flags,
                *("--inference-api-key-file", str(self.keys)),
                *("--management-token-file", str(self.token)),
                *("--management-tls-client-ca", str(self.client_ca)),
            ],
            folder / "balancer.log",
        )
        self.dialling = [
            *("--management-addr", f"localhost:{self.management}"),
            *("--management-token-file", str(self.token)),
            *("--management-tls-ca", str(self.ca)),
            *("--management-tls-client-cert", str(folder / "agent.pem")),
            *("--management-tls-client-key", str(folder / "agent.key")),
        ]
        self.agent = Process(
            ["agent", "--slots", "2", "--name", "gpu-1", *self.dialling], folder / "agent.log"
        )
        wait_until(lambda: "gpu-1" in self.paddler("status").stdout, "the agent is there")
        assert self.paddler("model", "set", str(model), "--wait").returncode == 0

    def issue(self, authority: trustme.CA, name: str) -> None:
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_pem.write_to_path(self.folder / f"{name}.key")
        (self.folder / f"{name}.pem").write_bytes(
            b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        )

    def paddler(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "paddler", *words, *self.dialling]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def get(self, port: int, path: str, **headers: str) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=self.ca)
        request = urllib.request.Request(f"https://localhost:{port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def stop(self) -> None:
        for process in (self.agent, self.balancer):
            if process.popen.poll() is None:
                process.stop()


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    folder = tmp_path_factory.mktemp("protected")
    fleet = Protected(folder, write_tiny_gguf(folder / "tiny.gguf"))
    yield fleet
    fleet.stop()


def client(protected: Protected, key: str = KEY) -> openai.OpenAI:
    context = ssl.create_default_context(cafile=protected.ca)
    http = openai.DefaultHttpxClient(verify=context)
    url = f"https://localhost:{protected.openai}/v1"
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, http_client=http)


def test_openais_client_is_served_by_tls_with_its_key(protected: Protected) -> None:
    with client(protected) as known:
        prompt: Any = {"model": "any", "prompt": "ab", "max_tokens": 5}
        assert known.completions.create(**prompt).usage.completion_tokens == 5
        chunks = list(known.completions.create(**prompt, stream=True))
        assert chunks[-1].choices[0].finish_reason == "length"
    with (
        client(protected, "not-the-key-at-all") as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.models.list()
    assert caught.value.code == "invalid_api_key"


def test_the_panel_is_served_by_tls_with_the_token(protected: Protected) -> None:
    assert protected.get(protected.panel, "/")[0] == 401
    status, page = protected.get(protected.panel, "/", Authorization=f"Bearer {TOKEN}")
    assert (status, b"paddler-dashboard" in page) == (200, True)


def test_management_wants_a_certificate_too(protected: Protected) -> None:
    with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
        protected.get(protected.management, "/api/v1/agents", Authorization=f"Bearer {TOKEN}")


def test_secrets_are_seen_nowhere(protected: Protected) -> None:
    for process in (protected.balancer, protected.agent):
        command = Path(f"/proc/{process.popen.pid}/cmdline").read_bytes()
        for secret in (KEY, TOKEN):
            assert secret.encode() not in command
            assert secret not in process.log
    events = protected.paddler("events", "--json").stdout
    assert "ops (127.0.0.1)" in events
    assert TOKEN not in events


def test_commands_say_what_is_wrong(protected: Protected) -> None:
    management = ["--management-addr", f"localhost:{protected.management}"]
    trusting = [*management, "--management-tls-ca", str(protected.ca)]
    for words, what in (
        ([*management, "--management-tls"], "certificate is not trusted"),
        ([*trusting, "--management-token-file", "/nowhere"], "/nowhere cannot be read"),
        ([*trusting, "--management-tls-client-cert", "/c"], "client-key is missing"),
    ):
        command = [sys.executable, "-m", "paddler", "status", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode in (1, 2)
        assert what in done.stderr
        assert "Traceback" not in done.stderr


def test_keys_and_certificates_are_replaced_in_flight(protected: Protected) -> None:
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        pytest.skip("these tests run under nohup, and so does what they start: SIGHUP is ignored")
    serial = certificate(protected)
    protected.issue(protected.authority, "server")
    protected.keys.write_text("search another-key-for-search\n")
    protected.balancer.signal(signal.SIGHUP)
    wait_until(lambda: certificate(protected) != serial, "the new certificate is shown")
    with client(protected, "another-key-for-search") as known:
        assert known.models.list()
    with client(protected) as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    assert protected.balancer.popen.poll() is None
    protected.keys.write_text(f"search {KEY}\n")
    protected.balancer.signal(signal.SIGHUP)

    def is_known() -> bool:
        with client(protected) as known:
            try:
                return bool(known.models.list())
            except openai.AuthenticationError:
                return False

    wait_until(is_known, "the old key is back")
    # One file that cannot be used keeps none of the others from being read.
    serial = certificate(protected)
    protected.issue(protected.authority, "server")
    keys = protected.keys.read_text()
    protected.keys.write_text("a line of many words\n")
    told = protected.balancer.log.count("read keys and certificates again")
    protected.balancer.signal(signal.SIGHUP)
    wait_until(lambda: certificate(protected) != serial, "the new certificate is shown")
    assert is_known()
    assert "what was read before stays in force" in protected.balancer.log
    assert protected.balancer.log.count("read keys and certificates again") == told
    protected.keys.write_text(keys)


def certificate(protected: Protected) -> str:
    return ssl.get_server_certificate(("localhost", protected.inference))


def test_an_agent_without_the_token_is_told_so(protected: Protected, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("a-token-that-is-not-known\n")
    words = [*protected.dialling]
    words[words.index(str(protected.token))] = str(wrong)
    stranger = Process(["agent", "--slots", "1", *words], tmp_path / "stranger.log")
    try:
        wait_until(lambda: "401" in stranger.log, "the refusal is logged")
        # The right one, put in its place, is taken at the next try.
        shutil.copy(protected.token, wrong)
        wait_until(lambda: "connected to balancer" in stranger.log, "it is let in")
    finally:
        stranger.stop()


def test_listening_openly_is_warned_of_once(tmp_path: Path) -> None:
    ports = free_ports(2)
    balancer = Process(
        [
            "balancer",
            *("--management-addr", f"127.0.0.1:{ports[0]}"),
            *("--inference-addr", f"0.0.0.0:{ports[1]}"),
        ],
        tmp_path / "balancer.log",
    )
    try:
        wait_until(lambda: "is ready" in balancer.log, "the balancer is ready")
        warnings = [line for line in balancer.log.splitlines() if "WARN" in line]
        assert len(warnings) == 1
        assert f"--inference-addr 0.0.0.0:{ports[1]}" in warnings[0]
    finally:
        balancer.stop()
