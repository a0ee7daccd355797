"""Strangers' work, done in a process that may die of it.

A chat template may loop, a JSON schema's pattern may backtrack for hours, an SVG may take
minutes to draw, and all may ask for any memory. No sandbox within a process bounds that,
so a child does such work: the kernel ends it when it has used up its processor time, and
refuses it memory; the parent ends it when it hangs. The one question that did it gets an
error; the next one gets a new child.

Questions and answers are JSON documents behind a ``u32`` length, over the child's
standard input and output. The child is this module: ``python -m …``.
"""

import contextlib
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self, assert_never

import msgspec

from paddler.agent.parent import die_with_parent
from paddler.agent.worker.chat_template import (
    ChatTemplate,
    TemplateCompileError,
    TemplateRenderError,
)
from paddler.agent.worker.confinement import confine
from paddler.agent.worker.images import UNDECODABLE, ImageRefused, RgbImage, prepare_images
from paddler.agent.worker.tool_calls.schemas import (
    failed_checks,
    invalid_schema,
    invalid_schema_text,
)
from paddler.messages._base import Wire
from paddler.messages.chat import Tool
from paddler.messages.tools import ParsedToolCall

# Processor time of one answer. A hundred times what a long conversation takes; answers
# go on meanwhile, but no other prompt of the worker is prepared.
DEADLINE_S: Final = 1.0

# Time by the clock, after which a child is not slow any more but hangs: stopped, or starved
# by the rest of the machine.
PATIENCE_S: Final = 20.0

# Address space beyond what a child has at rest.
_MEMORY_BYTES: Final = 1 << 30

_LENGTH: Final = struct.Struct("<I")


# --- questions ---------------------------------------------------------------------------------


class Compile(Wire, frozen=True, tag="compile"):
    """The template of all later questions."""

    source: str
    special_tokens: dict[str, str]


class Render(Wire, frozen=True, kw_only=True, tag="render"):
    """A prompt; the fields are the arguments of :meth:`ChatTemplate.render`."""

    messages: list[dict[str, Any]]
    add_generation_prompt: bool
    enable_thinking: bool
    tools: list[dict[str, Any]] | None
    variables: dict[str, Any]


class CheckSchemas(Wire, frozen=True, tag="check_schemas"):
    """Whether the tools' schemas are valid."""

    tools: list[Tool]


class CheckCalls(Wire, frozen=True, tag="check_calls"):
    """Whether calls are what the tools' schemas allow."""

    calls: list[ParsedToolCall]
    tools: list[Tool]


class PrepareImages(Wire, frozen=True, tag="prepare_images"):
    """The pixels of images."""

    urls: list[str]
    max_side: int


Question = Compile | Render | CheckSchemas | CheckCalls | PrepareImages


class Answer(msgspec.Struct, frozen=True):
    """The result, or why there is none."""

    value: Any = None
    error: str | None = None


class Overrun(Exception):
    """There is no child, or it ended while it worked on the answer. The message is a predicate."""


# --- here --------------------------------------------------------------------------------------


class BoundedProcess:
    """Renders one template, checks tool calls and prepares images. Use as ``with``.

    Raises :class:`TemplateCompileError` at once if the template does not compile. Without
    one, the child is started by the first question.
    """

    def __init__(
        self,
        template: str | None,
        special_tokens: Mapping[str, str] | None = None,
        *,
        deadline_s: float = DEADLINE_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._compile = None if template is None else Compile(template, dict(special_tokens or {}))
        self._deadline_s = deadline_s
        self._patience_s = patience_s
        self._child: subprocess.Popen[bytes] | None = None
        if self._compile is None:
            return
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child; fine if there is none."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            _bury(child)

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        add_generation_prompt: bool,
        enable_thinking: bool,
        tools: Sequence[dict[str, Any]] | None = (),
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt. Raises :class:`TemplateRenderError`."""
        question = Render(
            messages=list(messages),
            add_generation_prompt=add_generation_prompt,
            enable_thinking=enable_thinking,
            tools=None if tools is None else list(tools),
            variables=dict(variables or {}),
        )
        try:
            answer = self._ask(question)
        except Overrun as overrun:
            raise TemplateRenderError(f"the template {overrun}") from overrun
        if answer.error is not None:
            raise TemplateRenderError(answer.error)
        return str(answer.value)

    def invalid_schema(self, tools: Sequence[Tool]) -> str | None:
        """Which tool's parameters are no valid JSON schema, and why; ``None``: all are."""
        try:
            value = self._ask(CheckSchemas(list(tools))).value
        except Overrun as overrun:
            names = '", "'.join(tool.function.name for tool in tools)
            return invalid_schema_text(names, f"its check {overrun}")
        return None if value is None else str(value)

    def failed_checks(self, calls: Sequence[ParsedToolCall], tools: Sequence[Tool]) -> list[str]:
        """What is wrong with the calls, a text for each bad one."""
        try:
            return list(self._ask(CheckCalls(list(calls), list(tools))).value)
        except Overrun as overrun:
            names = '", "'.join(call.name for call in calls)
            return [f'arguments for tool "{names}" failed schema check: it {overrun}']

    def prepare_images(self, urls: Sequence[str], *, max_side: int) -> list[RgbImage]:
        """See :func:`~paddler.agent.worker.images.prepare_images`."""
        try:
            answer = self._ask(PrepareImages(list(urls), max_side))
        except Overrun as overrun:
            raise ImageRefused(f"{UNDECODABLE}: decoding it {overrun}") from overrun
        if answer.error is not None:
            raise ImageRefused(answer.error)
        return msgspec.convert(answer.value, list[RgbImage])

    def _start(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(self._deadline_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if self._compile is None:
            return
        try:
            answer = self._exchange(self._child, self._compile)
        except Overrun as overrun:
            raise TemplateCompileError(f"compiling it {overrun}") from overrun
        if answer.error is not None:
            raise TemplateCompileError(answer.error)

    def _ask(self, question: Question) -> Answer:
        if self._child is not None and self._child.poll() is not None:
            self.close()  # It died at rest: somebody outside ended it.
        if self._child is None:
            try:
                self._start()
            except (OSError, TemplateCompileError) as error:
                self.close()
                raise Overrun(f"could not be worked on: {error}") from error
        assert self._child is not None
        return self._exchange(self._child, question)

    def _exchange(self, child: subprocess.Popen[bytes], question: Question) -> Answer:
        assert child.stdin is not None
        assert child.stdout is not None
        encoded = _encoded(question)
        document = None
        watchdog = threading.Timer(self._patience_s, child.kill)
        watchdog.daemon = True
        watchdog.start()
        began_at = time.monotonic()
        # A child that dies while it is asked is told from its exit status below.
        with contextlib.suppress(BrokenPipeError):
            _write(child.stdin, encoded)
            document = _read(child.stdout)
        watchdog.cancel()
        if document is not None:
            return msgspec.json.decode(document, type=Answer)
        self._child = None
        raise Overrun(self._describe(_bury(child), time.monotonic() - began_at))

    def _describe(self, returncode: int, took_s: float) -> str:
        if returncode == -signal.SIGKILL and took_s >= self._patience_s:
            return f"had no end after {self._patience_s:g} s"
        if returncode == -signal.SIGPROF:
            return f"took more than {self._deadline_s:g} s, the most that is allowed"
        return f"ended its process with status {returncode}"


def _encoded(question: Question) -> bytes:
    try:
        return msgspec.json.encode(question)
    except RecursionError as error:
        raise Overrun("could not be worked on: the request is nested too deeply") from error


def _bury(child: subprocess.Popen[bytes]) -> int:
    """Free what is left of a child that has ended or will soon; returns its status."""
    for pipe in (child.stdin, child.stdout):
        # The pipe may still hold what the child did not read; nobody will.
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()
    return child.wait()


# --- there -------------------------------------------------------------------------------------


def main(argv: Sequence[str]) -> None:
    """Answer until the input ends."""
    die_with_parent()  # at work it would not see the input end, and have nobody to answer
    deadline_s = float(argv[1])
    # The parent decides when this ends, also when Ctrl-C reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # who asked is gone: end without a word
    _limit_memory()
    confine()  # it may be the child of an agent, which is not
    decode = msgspec.json.Decoder(Question).decode
    template: ChatTemplate | None = None
    while (document := _read(sys.stdin.buffer)) is not None:
        # Processor time, not the clock: the machine may be busy with decoding.
        signal.setitimer(signal.ITIMER_PROF, deadline_s)
        try:
            question = decode(document)
            if isinstance(question, Compile):
                template = ChatTemplate(question.source, **question.special_tokens)
                answer = Answer()
            else:
                answer = Answer(_answer(question, template))
        except (TemplateCompileError, TemplateRenderError, ImageRefused) as error:
            answer = Answer(error=str(error))
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(sys.stdout.buffer, msgspec.json.encode(answer))


def _limit_memory() -> None:
    """Bound the address space, where the system tells its size and lets it be bounded (Linux)."""
    with contextlib.suppress(ValueError, OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + _MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _answer(
    question: Render | CheckSchemas | CheckCalls | PrepareImages, template: ChatTemplate | None
) -> Any:
    match question:
        case Render():
            if template is None:
                raise TemplateRenderError("there is no template")
            return template.render(**msgspec.structs.asdict(question))
        case CheckSchemas():
            return invalid_schema(question.tools)
        case CheckCalls():
            return failed_checks(question.calls, question.tools)
        case PrepareImages():
            return prepare_images(question.urls, max_side=question.max_side)
        case _:
            assert_never(question)


def _write(stream: IO[bytes], document: bytes) -> None:
    stream.write(_LENGTH.pack(len(document)) + document)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    """The next document; ``None`` at the end, even within one."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    document = stream.read(length)
    return document if len(document) == length else None


if __name__ == "__main__":
    main(sys.argv)
