"""Children that end with their parent."""

import subprocess
import sys
import time

from tests.e2e.fleet import is_alive

CHILD = "import sys; from paddler.agent.parent import die_with_parent; die_with_parent(); {}"
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    child = CHILD.format("print('there', flush=True); import time; time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # between two looks at another process


def test_a_child_of_a_living_parent_lives() -> None:
    code = CHILD.format("print('there')")
    answer = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert answer.stdout == b"there\n"
