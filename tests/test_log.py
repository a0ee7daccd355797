import json
import re
import subprocess
import sys

import pytest

from paddler.log import parse_filter


@pytest.mark.parametrize(
    ("environ", "levels"),
    [
        ({}, ["INFO", "ERROR"]),
        ({"PADDLER_LOG": "debug"}, ["DEBUG", "INFO", "ERROR"]),
        ({"PADDLER_LOG": "warn,m=debug"}, ["DEBUG", "INFO", "ERROR"]),
        ({"PADDLER_LOG": "debug,m=error"}, ["ERROR"]),
        ({"RUST_LOG": "trace"}, ["DEBUG", "INFO", "ERROR"]),
        ({"PADDLER_LOG": "error", "RUST_LOG": "debug"}, ["ERROR"]),
        ({"PADDLER_LOG": "nonsense"}, ["INFO", "ERROR"]),
        ({"PADDLER_LOG": "off"}, []),
    ],
)
def test_levels_come_from_the_environment(environ: dict[str, str], levels: list[str]) -> None:
    script = (
        "import logging; from paddler.log import set_up_logging\n"
        f"set_up_logging({environ!r})\n"
        "log = logging.getLogger('m'); log.debug('x'); log.info('x'); log.error('x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    shape = re.compile(r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ([A-Z]+) m\] x")
    matches = [shape.fullmatch(line) for line in done.stderr.splitlines()]
    assert [match[1] for match in matches if match] == levels


def test_rust_module_paths_are_understood() -> None:
    assert parse_filter("info,paddler::agent=debug") == (20, {"paddler.agent": 10})


def test_logs_may_be_json() -> None:
    script = (
        "import logging; from paddler.log import set_up_logging\n"
        "set_up_logging({}, log_format='json')\n"
        "log = logging.getLogger('m'); log.warning('a %s', 'b')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: log.exception('bad')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    first, second = map(json.loads, done.stderr.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"level": "WARN", "logger": "m", "message": "a b"}
    assert "ZeroDivisionError" in second["traceback"]


def test_a_worker_takes_the_format_from_its_environment() -> None:
    script = (
        "import logging; from paddler.log import set_up_logging\n"
        "set_up_logging({'PADDLER_LOG_FORMAT': 'json'}); logging.getLogger('m').error('x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr)["message"] == "x"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_strangers_wrote_stays_on_its_line_and_within_bounds(log_format: str) -> None:
    script = (
        "import logging; from paddler.log import set_up_logging\n"
        f"set_up_logging({{}}, log_format={log_format!r})\n"
        "log = logging.getLogger('m')\n"
        r"log.warning('key %s', 'x\n[2026-01-01T00:00:00Z INFO m] forged \x1b[31m')"
        "\n"
        "log.warning('key %s', 'K' * 3_000_000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    forged, long = done.stderr.splitlines()
    assert "\\x1b[31m" in forged
    assert "\x1b" not in forged
    assert len(long) < 5_000
    assert "(3,000,004 characters)" in long
