"""Who looks at the wall clock: it jumps, so nothing may be measured or timed by it."""

import ast
from pathlib import Path

import paddler

PACKAGE = Path(paddler.__file__).parent

# What the time is, for people and for the wire.
ALLOWED = {
    "agent/details.py": "when the agent started, for operators",
    "agent/worker/chat_template.py": "a template writes today's date",
    "balancer/history.py": "when a sample was taken, for operators",
    "balancer/journal.py": "when something happened; the first id, from which ids go up",
    "balancer/services/openai/chat.py": "created",
    "balancer/services/openai/completions.py": "created",
    "balancer/services/openai/models.py": "created",
    "balancer/services/openai/responses.py": "created_at",
    "balancer/services/panel_stream.py": "instants, for the panel",
    "log.py": "the time of a line",
    "operators/control.py": "when an event happened, in the reader's own time",
}
WALL_CLOCKS = {"time.time", "time.time_ns", "time.gmtime", "time.localtime", "time.ctime"}
DATES = {"now", "utcnow", "today", "fromtimestamp"}


def wall_clocks_of(source: str) -> set[str]:
    """What a module uses of the wall clock, called or handed on."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name in WALL_CLOCKS or (node.attr in DATES and "date" in name):
                found.add(name)
        elif isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            # By a bare name it would not be seen above.
            found |= {f"{node.module}.{name.name}" for name in node.names} & WALL_CLOCKS
            found |= {f"{node.module}.{name.name}" for name in node.names if "date" in name.name}
    return found


def test_the_search_sees_the_wall_clock_however_it_is_called() -> None:
    for source in (
        "import time\ntime.time()",
        "import time\ndef f(clock=time.time): ...",
        "from time import time",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime",
    ):
        assert wall_clocks_of(source), source
    assert not wall_clocks_of("import time\ntime.monotonic()\nloop.time()\nself.activity.now")


def test_the_wall_clock_is_looked_at_only_to_tell_the_time() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if wall_clocks_of(path.read_text())
    }
    assert users == set(ALLOWED)
