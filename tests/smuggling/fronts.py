"""Proxies that stand in front of the origin as they do in front of a balancer.

Each keeps few connections to the origin and uses them for all clients, so that a request which one
side saw and the other did not shifts the answers of others.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.smuggling.origin import FRONT_FIELD

PACKAGES: Final = {"nginx": "nginx-light", "haproxy": "haproxy"}

_NGINX: Final = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1; {user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port} backlog=512;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_set_header Host $host;
            proxy_set_header Connection "";
            proxy_set_header {field} $request_id;
        }}
    }}
}}
"""
_HAPROXY: Final = """
global
    maxconn 512
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    http-reuse always
frontend front
    bind 127.0.0.1:{port}
    unique-id-format %[uuid()]
    http-request set-header {field} %[unique-id]
    default_backend origins
backend origins
    server origin 127.0.0.1:{origin}
"""


def is_installed(name: str) -> bool:
    """Whether there is such a program; Debian has it where no user's PATH looks."""
    return _program(name) is not None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextlib.contextmanager
def running(name: str, origin_port: int, folder: Path) -> Iterator[int]:
    """The port of a proxy in front of the origin."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    template = _NGINX if name == "nginx" else _HAPROXY
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / f"{name}.conf"
    config.write_text(
        template.format(folder=folder, port=port, origin=origin_port, field=FRONT_FIELD, user=user)
    )
    program = _program(name)
    assert program is not None
    command = [program, *(("-c",) if name == "nginx" else ("-db", "-f")), str(config)]
    if name == "nginx":
        command += ["-p", str(folder), "-e", str(folder / "error.log")]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_until_it_listens(port, process, folder / "output")
        yield port
    finally:
        process.kill() if name == "haproxy" else process.terminate()
        process.wait(10)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.02)
