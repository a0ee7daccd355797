"""Logging of every Paddler process: one line each on stderr, filtered by the environment.

``RUST_LOG`` (kept for compatibility) and ``PADDLER_LOG`` hold a filter: a level for
everything, and levels for single modules, as in ``info,paddler.agent=debug``.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Final

from paddler.text import printable

LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}


LOG_FORMATS: Final = ("text", "json")
LOG_FORMAT_VARIABLE: Final = "PADDLER_LOG_FORMAT"


MAX_MESSAGE_CHARS: Final = 4_096
"""Longer messages are cut: strangers choose what some of them quote."""


def safe_message(record: logging.LogRecord) -> str:
    """The message of a record, in bounds and on one line, whatever strangers wrote into it."""
    message = record.getMessage()
    if (chars := len(message)) > MAX_MESSAGE_CHARS:
        message = f"{message[:MAX_MESSAGE_CHARS]}… ({chars:,} characters)"
    return printable(message)


class LineFormatter(logging.Formatter):
    """``[2026-01-31T12:00:00Z INFO paddler.agent.link] message``; tracebacks follow."""

    def __init__(self) -> None:
        super().__init__(
            "[%(asctime)s %(levelname)s %(name)s] %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ"
        )
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without traceback."""
        record.message = safe_message(record)
        return super().formatMessage(record)


def parse_filter(text: str) -> tuple[int, dict[str, int]]:
    """The level for everything and the levels for single modules; unknown words are skipped."""
    everything = logging.INFO
    modules: dict[str, int] = {}
    for directive in filter(None, (part.strip() for part in text.split(","))):
        module, equals, level = directive.rpartition("=")
        if level.lower() not in LEVELS:
            continue
        if equals:
            modules[module.replace("::", ".")] = LEVELS[level.lower()]
        else:
            everything = LEVELS[level.lower()]
    return everything, modules


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, maybe ``traceback``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": safe_message(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logging(
    environ: Mapping[str, str], *, default: str = "info", log_format: str | None = None
) -> None:
    """Send this process's logs to stderr, filtered as the environment says.

    ``log_format``: one of ``LOG_FORMATS``; ``None``: as the environment says, else text.
    """
    text = environ.get("PADDLER_LOG") or environ.get("RUST_LOG") or default
    everything, modules = parse_filter(text)
    handler = logging.StreamHandler(sys.stderr)
    chosen = log_format or environ.get(LOG_FORMAT_VARIABLE)
    handler.setFormatter(JsonFormatter() if chosen == "json" else LineFormatter())
    logging.addLevelName(logging.WARNING, "WARN")
    logging.basicConfig(level=everything, handlers=[handler], force=True)
    for module, level in modules.items():
        logging.getLogger(module).setLevel(level)
