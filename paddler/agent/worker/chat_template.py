"""Chat templates as Hugging Face models carry them: Jinja2, sandboxed, from messages to a prompt.

The environment has what ``transformers.apply_chat_template`` gives a template: trimmed
blocks, loop controls, ``raise_exception``, ``strftime_now``, a ``tojson`` that is plain
JSON (Jinja's own escapes HTML), ``{% generation %}`` blocks, and ``documents`` that are
``None``. Beyond it, templates may grow lists, and ``tojson`` takes what filters give: some
templates in use need that.

The sandbox keeps a template from reaching out, not from using up time and memory: where
that matters, render in a :class:`~paddler.agent.worker.bounded.BoundedProcess`.
"""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# Far more than fits in a large context.
MAX_PROMPT_CHARS: Final = 8 * 1024 * 1024


class TemplateCompileError(Exception):
    """The template is no valid Jinja; the message has the reason and the line."""


class TemplateRenderError(Exception):
    """The template compiles, but fails on this conversation."""


class Renderer(Protocol):
    """What renders a chat template: one here, or one in a process of its own."""

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
        ...


class ChatTemplate:
    """A compiled chat template and the texts of the model's special tokens."""

    def __init__(self, source: str, *, bos_token: str, eos_token: str, nl_token: str) -> None:
        self._special_tokens = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "nl_token": nl_token,
        }
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateCompileError(_sound(f"line {error.lineno}: {error.message}")) from error
        except SyntaxError as error:
            # Jinja writes Python, which knows no {% break %} outside of a loop. The line that it
            # names is one of what was written.
            raise TemplateCompileError(_sound(error.msg)) from error
        except Exception as error:  # Both compilers give up on some sources in ways of their own.
            raise TemplateCompileError(_sound(f"{type(error).__name__}: {error}")) from error

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        add_generation_prompt: bool,
        enable_thinking: bool,
        tools: Sequence[dict[str, Any]] | None = (),
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt, at most ``MAX_PROMPT_CHARS`` long.

        ``variables`` win over the rest. A template may change the lists within a message.
        """
        context = {
            **self._special_tokens,
            "messages": list(messages),
            "add_generation_prompt": add_generation_prompt,
            "enable_thinking": enable_thinking,
            "thinking": enable_thinking,  # as DeepSeek and Granite call it
            "tools": None if tools is None else list(tools),
            "documents": None,
            **(variables or {}),
        }
        pieces: list[str] = []
        chars = 0
        try:
            for piece in self._template.generate(context):
                chars += len(piece)
                if chars > MAX_PROMPT_CHARS:
                    raise TemplateRenderError(
                        f"it wrote more than {MAX_PROMPT_CHARS} characters, the most that is taken"
                    )
                pieces.append(piece)
        except TemplateRenderError:
            raise
        except Exception as error:  # A template runs arbitrary expressions: anything may come.
            raise TemplateRenderError(_sound(_describe(error))) from error
        return _sound("".join(pieces))


class _RaisedByTemplate(jinja2.TemplateError):
    """The template itself called ``raise_exception``."""


class _GenerationBlocks(Extension):
    """``{% generation %}`` marks what a model said, for training; here it renders its body."""

    tags = {"generation"}  # noqa: RUF012 - declared so by Jinja

    def parse(self, parser: Parser) -> nodes.Node:
        """Replace the block by a scope with its body."""
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=lineno)


class _Dicts:
    """The global ``dict``, without the type's own attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        """A dict with one value for all keys."""
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """The global ``namespace``. Names like ``__class__`` would reach into Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # No parameter has a name, so that a template may use any, ``self`` included.
        self, *given = args
        Namespace.__init__(self)
        for name, value in dict(*given, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("__"):
            raise SecurityError(f"a namespace has no {name!r}: two underscores may not come first")
        super().__setitem__(name, value)


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox in which lists may grow and shrink: they are the template's own."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use this attribute."""
        if isinstance(obj, list) and attr in ("append", "extend", "pop"):
            return True
        return super().is_safe_attribute(obj, attr, value)


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlocks]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _Dicts()
    environment.globals["namespace"] = _Namespace
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
        default=_listed,
    )


def _listed(value: Any) -> list[Any]:
    """What a filter like ``map`` gives, as a list."""
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _raise_exception(message: str) -> None:
    raise _RaisedByTemplate(f"Model's chat template raised an exception: '{message}'")


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)


def _describe(error: Exception) -> str:
    if isinstance(error, _RaisedByTemplate):
        return str(error)
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        # Jinja rewrites tracebacks so that frames of a template carry the template's own lines.
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    where = "" if line is None else f"line {line}: "
    return f"{where}{type(error).__name__}: {error}"


def _sound(text: str) -> str:
    """``text`` without half characters, which a template can write and no encoding takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
