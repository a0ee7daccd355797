"""llama.cpp's own log, as lines of ours, and the errors whose reasons it tells."""

import logging
from typing import Final

# ggml.h, enum ggml_log_level. Its info is about tensors and buffers: detail for us.
_ENGINE_LEVELS: Final = {
    1: logging.DEBUG,
    2: logging.DEBUG,
    3: logging.WARNING,
    4: logging.ERROR,
}
_CONTINUES_LINE: Final = 5

# Said when llama_decode returns 1, or a copy of cells finds no room, which the worker handles
# as part of its work; what else llama_decode returns, the worker logs itself.
_EXPECTED: Final = (
    "failed to find a memory slot",
    "failed to decode image",
    "available cells in kv cache",
    "failed to restore kv cache",
)

_engine_log = logging.getLogger("llama.cpp")


class EngineError(Exception):
    """llama.cpp refused; the message has its own reason where it gave one."""


class EngineLog:
    """Turns llama.cpp's log pieces into whole lines.

    ``first_error`` is the first since it was last set to ``None``: the reason of a failure.
    What follows it only says that its caller failed, too.
    """

    def __init__(self) -> None:
        self.first_error: str | None = None
        self._level = logging.DEBUG
        self._line = ""

    def refused(self, what: str) -> EngineError:
        """The error for a call that failed since ``first_error`` was cleared."""
        return EngineError(f"{what}: {self.first_error or 'llama.cpp gave no reason'}")

    def on_text(self, ggml_level: int, text: bytes) -> None:
        """One call of llama.cpp's log callback: a line, a part of one, or several."""
        if ggml_level != _CONTINUES_LINE:
            self._end_line()
            self._level = _ENGINE_LEVELS.get(ggml_level, logging.DEBUG)
        *lines, rest = text.decode("utf-8", "replace").split("\n")
        for line in lines:
            self._line += line
            self._end_line()
        self._line += rest

    def _end_line(self) -> None:
        line, self._line = self._line.strip(), ""
        if not line:
            return
        if self._level == logging.ERROR and self.first_error is None:
            self.first_error = line
        is_expected = any(text in line for text in _EXPECTED)
        _engine_log.log(logging.DEBUG if is_expected else self._level, "%s", line)


native_log: Final = EngineLog()
"""Of this process: llama.cpp has one log for all that it does."""
