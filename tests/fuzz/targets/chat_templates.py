"""Chat templates, as model files bring them.

Invariants: a template compiles or is a ``TemplateCompileError``; it renders to a text of at most
the longest that is taken, or is a ``TemplateRenderError``; texts and errors can be encoded. What
would run for long is not looked at here: a process that may be ended does that work
(``paddler.agent.worker.bounded``).
"""

import re
import signal
from types import FrameType

from paddler.agent.worker.chat_template import (
    MAX_PROMPT_CHARS,
    ChatTemplate,
    TemplateCompileError,
    TemplateRenderError,
)

SEEDS = (
    b"{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}\n{% endfor %}",
    b"{%- if tools %}{{ tools | tojson(indent=4) }}{% endif -%}{{ bos_token }}",
    b"{% set ns = namespace(a=1) %}{% set ns.a = 2 %}{{ ns.a }}{{ ns['__class__'] }}",
    b"{{ raise_exception('no') }}",
    b"{% generation %}{{ eos_token }}{% endgeneration %}",
    b"{% macro m(x) %}{{ x }}{% endmacro %}{{ m(messages[0].content[1:-1]) }}",
    b"{{ '\\ud800' }}",
    b"{{ ''.__class__.__mro__[1].__subclasses__() }}",
    b"{{ strftime_now('%d %b') }}",
    b"{{ dict.fromkeys('ab', 1) | items | list }}{% break %}",
    b"{% for i in range(9) %}{% if loop.last %}{% continue %}{% endif %}{{ i }}{% endfor %}",
)
DICTIONARY = (
    b"{{ ",
    b" }}",
    b"{% ",
    b" %}",
    b"{%- ",
    b" -%}",
    b"for m in messages",
    b"endfor",
    b"if ",
    b"endif",
    b"set ",
    b"namespace(",
    b"| tojson",
    b".append(",
    b".pop()",
    b"__class__",
    b"loop.",
    b"tools",
    b"raise_exception(",
    b"is defined",
    b"[::-1]",
    b"{# ",
    b" #}",
    b"{% raw %}",
    b"'%s' % ",
)

# Numbers and powers that ask for more time or memory than a test has.
LARGE = re.compile(r"\d{4}|\d_\d|\*\*|e\d|range|center|ljust|rjust|zfill|lipsum|include|0x")
MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": None}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


class _TooLong(BaseException):
    """The template runs on; no ``Exception``, since templates may end in any of those."""


def check(data: bytes) -> None:
    """The invariants for ``data`` as a template."""
    source = data.decode(errors="replace")
    if LARGE.search(source.lower()):
        return
    before = signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", nl_token="\n")
        prompt = template.render(
            MESSAGES, add_generation_prompt=True, enable_thinking=False, tools=TOOLS
        )
    except (TemplateCompileError, TemplateRenderError) as error:
        assert str(error).encode()  # it travels, as does the prompt
    except _TooLong:
        pass
    else:
        assert len(prompt.encode()) <= 4 * MAX_PROMPT_CHARS
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _TooLong
