"""What a balancer loads before it listens: a process that starts at once loads little."""

import subprocess
import sys

# A library beyond these costs every start, and every host of a balancer, something.
NEEDED = {"msgspec", "paddler", "typing_extensions", "uvloop"}

LOADED = """
import sys
import paddler.cli, paddler.balancer.app
tops = {name.partition(".")[0] for name in sys.modules}
print(*sorted(top for top in tops - set(sys.stdlib_module_names) if not top.startswith("_")))
"""


def test_a_balancer_loads_no_library_that_it_can_start_without() -> None:
    run = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split()) - {"cython_runtime"}
    assert loaded <= NEEDED


def test_a_balancer_loads_nothing_of_an_agent_or_of_listeners_not_asked_for() -> None:
    code = "import sys, paddler.cli, paddler.balancer.app; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = run.stdout.split()
    assert not [name for name in loaded if name.startswith("paddler.agent")]
    # Nor of what serves listeners that nobody asked for.
    optional = ("paddler.balancer.services.openai", "paddler.balancer.services.panel")
    assert not [name for name in loaded if name.startswith(optional)]
