"""What docs/deploy hands to operators, checked by the tools that it is for."""

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import (
    Fleet,
    ask,
    conversation,
    free_ports,
    get,
    raw_prompt,
    tokens_of,
    wait_until,
)

DEPLOY = Path(__file__).parent.parent.parent / "docs" / "deploy"


def needs(tool: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(tool) is None, reason=f"{tool} is not installed (Debian: {package})"
    )


# --- nginx --------------------------------------------------------------------------------------


@pytest.fixture
def panel_port() -> int:
    """Where that nginx has the panel."""
    return free_ports(1)[0]


@pytest.fixture
def proxy(fleet: Fleet, tmp_path: Path, panel_port: int) -> Iterator[int]:
    """The port of an nginx with the documented configuration, in front of the fleet."""
    (port,) = free_ports(1)
    text = (DEPLOY / "nginx.conf").read_text()
    for documented, actual in (
        ("listen 8080;", f"listen 127.0.0.1:{port};"),
        ("127.0.0.1:8061", f"127.0.0.1:{fleet.inference}"),
        ("127.0.0.1:8070", f"127.0.0.1:{fleet.openai}"),
        ("127.0.0.1:8062", f"127.0.0.1:{fleet.panel}"),
        ("listen 8081;", f"listen 127.0.0.1:{panel_port};"),
    ):
        assert documented in text
        text = text.replace(documented, actual)
    folders = "".join(
        f"{kind}_temp_path {tmp_path};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {\n", f"http {{\naccess_log off;\n{folders}", 1)
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/nginx.pid;\ndaemon off;\nuser root;\n{text}")
    log = tmp_path / "error.log"
    nginx = subprocess.Popen(["nginx", "-c", str(config), "-p", str(tmp_path), "-e", str(log)])
    try:
        wait_until(lambda: answers(port), "nginx listens")
        yield port
    finally:
        nginx.terminate()
        nginx.wait(15)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return get(port, "/ready")[0] == 200
    return False


@needs("nginx", "nginx-light")
def test_tokens_pass_nginx_one_by_one(proxy: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy, timeout=60)
    body = json.dumps(raw_prompt("Once", 30))
    with contextlib.closing(connection):
        connection.request(
            "POST",
            "/api/v1/continue_from_raw_prompt",
            body,
            {"content-type": "application/json"},
        )
        arrived_at = [time.monotonic() for _ in connection.getresponse()]
    assert len(arrived_at) == 31
    # With buffering on, all of them come at the end, within a millisecond or so.
    assert arrived_at[-1] - arrived_at[0] > 0.05


@needs("nginx", "nginx-light")
def test_the_panel_passes_nginx(proxy: int, panel_port: int) -> None:
    assert b"paddler-dashboard" in get(panel_port, "/")[1]
    connection = http.client.HTTPConnection("127.0.0.1", panel_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/api/v1/panel/stream")
        assert connection.getresponse().readline() == b"event: hello\n"
    for origin, status in (
        (f"http://127.0.0.1:{panel_port}", 404),  # the page's own: the agent is looked for
        (f"http://127.0.0.1:{proxy}", 403),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", panel_port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/api/v1/agent/none/drain", headers={"origin": origin})
            assert connection.getresponse().status == status


@needs("nginx", "nginx-light")
def test_a_client_of_openais_passes_nginx(proxy: int) -> None:
    from openai import OpenAI

    with OpenAI(base_url=f"http://127.0.0.1:{proxy}/v1", api_key="x", max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=5,
            stream=True,
        )
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] in ("stop", "length")


@needs("nginx", "nginx-light")
def test_the_inference_socket_passes_nginx(proxy: int) -> None:
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{proxy}/api/v1/inference_socket") as socket:
        request = {"ContinueFromRawPrompt": raw_prompt("Once", 3)}
        socket.send(json.dumps({"Request": {"id": "1", "request": request}}))
        messages = [json.loads(socket.recv(60)) for _ in range(4)]
    assert len(tokens_of(messages)) == 3


# --- systemd ------------------------------------------------------------------------------------


@needs("systemd-analyze", "systemd")
@pytest.mark.parametrize("name", ["paddler-balancer.service", "paddler-agent.service"])
def test_a_unit_is_one_that_systemd_takes(tmp_path: Path, name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert "/opt/paddler/bin/paddler" in text
    unit = tmp_path / name
    unit.write_text(text.replace("/opt/paddler/bin/paddler", f"{sys.prefix}/bin/paddler"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if name in line]
    assert complaints == []
    assert done.returncode == 0


# --- Prometheus and Grafana ---------------------------------------------------------------------


def metrics(fleet: Fleet) -> str:
    status, body = get(fleet.management, "/metrics")
    assert status == 200
    return body.decode()


@needs("promtool", "prometheus")
def test_the_metrics_are_what_prometheus_expects(fleet: Fleet) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=metrics(fleet),
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if line]
    # Its name is older than the convention, and clients know it.
    known = 'paddler_slots_total non-counter metrics should not have "_total" suffix'
    assert complaints == [known]


@needs("promtool", "prometheus")
def test_the_alert_rules_are_valid() -> None:
    subprocess.run(["promtool", "check", "rules", str(DEPLOY / "alerts.yaml")], check=True)


@pytest.mark.parametrize("name", ["alerts.yaml", "grafana-dashboard.json"])
def test_every_metric_that_is_asked_for_is_there(fleet: Fleet, name: str) -> None:
    ask(fleet.inference, conversation("Hello", 3))
    exposed = set(re.findall(r"^(?:# TYPE )?(paddler_\w+)", metrics(fleet), re.MULTILINE))
    asked_for = set(re.findall(r"\bpaddler_[a-z_]+", (DEPLOY / name).read_text()))
    assert asked_for
    assert asked_for <= exposed


def test_the_dashboard_is_json_with_a_query_in_every_panel() -> None:
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    assert dashboard["panels"]
    for panel in dashboard["panels"]:
        assert all(target["expr"] for target in panel["targets"]), panel["title"]
