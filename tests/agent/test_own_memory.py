"""What a process that was taken over finds of its neighbours."""

import subprocess
import sys

import pytest

from tests.e2e.fleet import free_ports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux' /proc")

# Two processes of one user who is not root; PR_SET_DUMPABLE, since a change of user clears it.
NEIGHBOURS = """
import ctypes, os, sys
from paddler.agent.own_memory import keep_own_memory
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
ready, done = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    {before}
    os.write(ready[1], b"x")
    os.read(done[0], 1)
    os._exit(0)
os.read(ready[0], 1)
for name in ("mem", "environ"):
    try:
        os.close(os.open(f"/proc/{{child}}/{{name}}", os.O_RDONLY))
        print("open")
    except OSError as error:
        print(type(error).__name__)
os.write(done[1], b"x")
os.waitpid(child, 0)
"""


def found(before: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", NEIGHBOURS.format(before=before)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_neighbour_cannot_open_the_memory_of_a_process_that_keeps_it() -> None:
    assert found("keep_own_memory()") == ["PermissionError"] * 2
    # Were it closed anyhow, the line above would show nothing.
    if "open" not in found("pass"):
        pytest.skip("this system closes everybody's memory")


def test_an_agent_keeps_its_memory() -> None:
    (port,) = free_ports(1)  # nobody listens there: it dials on
    code = (
        "import ctypes, sys; from paddler import cli; from paddler.agent import app; "
        "app.serve_until_stopped = lambda config: report(); "
        "libc = ctypes.CDLL(None)\n"
        "async def report(): print(libc.prctl(3, 0, 0, 0, 0))\n"
        f"sys.exit(cli.main(['agent', '--management-addr', '127.0.0.1:{port}', '--slots', '1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["0"], done.stderr
