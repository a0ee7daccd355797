import json
import re
from typing import Any

import pytest

from paddler.agent.worker import chat_template
from paddler.agent.worker.chat_template import (
    ChatTemplate,
    TemplateCompileError,
    TemplateRenderError,
)

HELLO = [{"role": "user", "content": "Hello"}]


def compiled(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>", nl_token="\n")


def rendered(source: str, messages: list[dict[str, Any]] = HELLO, **arguments: Any) -> str:
    arguments = {"add_generation_prompt": True, "enable_thinking": False} | arguments
    return compiled(source).render(messages, **arguments)


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        ("{{ messages[0]['role'] }}: {{ messages[0].content }}", "user: Hello"),
        ("{{ bos_token }}|{{ eos_token }}|{{ nl_token }}|", "<s>|</s>|\n|"),
        ("{{ add_generation_prompt }} {{ enable_thinking }} {{ tools }}", "True False []"),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}said{% endgeneration %}!", "said!"),
        ("{{ {'é': '<b>', 'a': [1]} | tojson }}", '{"é": "<b>", "a": [1]}'),
        ("{{ {'b': 1, 'a': 'é'} | tojson(sort_keys=true, ensure_ascii=true) }}",
         '{"a": "\\u00e9", "b": 1}'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ {'a': 1} | tojson(indent=1) }}", '{\n "a": 1\n}'),
        ("{{ 'Hello'.upper() }}{{ ' x '.strip() }}", "HELLOx"),
        ("{{ undefined_name }}{{ undefined_name is defined }}", "False"),
        ("{% set l = [1] %}{% set _ = l.append(2) %}{{ l.pop(0) }}{{ l }}", "1[2]"),
        ("{{ messages | map(attribute='role') | tojson }}", '["user"]'),
        ("{{ thinking }}", "False"),
        ("{{ documents is none }}", "True"),
        ("{{ [3, 1, 2, 4][1:-1] }}{{ 'abc'[::-1] }}{{ (1, 2)[0] }}", "[1, 2]cba1"),
        ("{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "b1a2"),
        ("{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}", "a2b1"),
        ("{% for i in 'ab' %}{{ loop.index0 }}{{ loop.last }}{{ loop.previtem }}{% endfor %}",
         "0False1Truea"),
        ("{% for i in range(4) %}{% if i is odd %}{% continue %}{% endif %}{{ i }}{% endfor %}",
         "02"),
        ("{{ (messages | selectattr('role', 'equalto', 'user') | list)[0].content }}", "Hello"),
        ("{{ messages | rejectattr('role', 'in', ['user']) | list }}", "[]"),
        ("{% macro m(a, b='y') %}{{ a }}{{ b }}{% endmacro %}{{ m('x') }}{{ m(1, b=2) }}", "xy12"),
        ("{% set ns = namespace(n=0) %}{% for i in 'ab' %}{% set ns.n = ns.n + 1 %}{% endfor %}"
         "{{ ns.n }}", "2"),
        ("{% set ns = namespace({'a': 1}, self=2) %}{{ ns.a }}{{ ns.self }}", "12"),
        ("{{ dict(a=1) }}{{ dict([('b', 2)]) }}{{ dict.fromkeys('c', 3) }}",
         "{'a': 1}{'b': 2}{'c': 3}"),
        ("{{ 'a b'.split(' ')[-1].replace('b', 'c').title() }}{{ 'ab'.startswith('a') }}", "CTrue"),
        ("{{ ' a\n'.rstrip() + 'x'.lstrip('x') }}|{{ 'a,b'.split(',', 1) | join('-') }}", " a|a-b"),
        ("{{ 'x' if none is none else 'y' }}{{ 1 is string }}{{ {} is mapping }}", "xFalseTrue"),
        ("{{ '%s-%d' | format('a', 3) }}{{ '{}{}'.format(1, 2) }}", "a-312"),
        ("{{ 'ab' | list | tojson(indent=2) | indent(2) }}", '[\n    "a",\n    "b"\n  ]'),
        ("{{ undefined_name | default('d') }}{{ none | default('d', true) }}", "dd"),
    ],
)  # fmt: skip
def test_template_finds_what_hugging_face_gives_it(source: str, prompt: str) -> None:
    assert rendered(source) == prompt


def test_strftime_now_tells_todays_date() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", rendered("{{ strftime_now('%Y-%m-%d') }}"))


def test_content_parts_stay_parts() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]
    source = "{% for part in messages[0].content %}[{{ part.type }}:{{ part.text }}]{% endfor %}"
    assert rendered(source, messages) == "[text:a][text:b]"


def test_tools_keep_their_key_order() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d"}}]
    assert json.loads(rendered("{{ tools | tojson }}", tools=tools)) == tools
    assert rendered("{{ tools[0] | tojson }}", tools=tools).startswith('{"type": "function"')


def test_variables_of_a_request_win() -> None:
    assert rendered("{{ enable_thinking }}{{ depth }}", variables={"depth": 2}) == "False2"
    assert rendered("{{ thinking }}", variables={"thinking": "deeply"}) == "deeply"


def test_values_that_are_no_json_are_refused() -> None:
    with pytest.raises(TemplateRenderError, match="Undefined is no JSON"):
        rendered("{{ nothing | tojson }}")


def test_syntax_error_names_its_line() -> None:
    with pytest.raises(TemplateCompileError, match=r"line 2: .*unknown tag 'fi'"):
        compiled("{% if true %}\n{% fi %}")


@pytest.mark.parametrize("source", ["{% break %}", "{% if x %}{% continue %}{% endif %}"])
def test_template_that_python_cannot_compile_is_a_compile_error(source: str) -> None:
    with pytest.raises(
        TemplateCompileError, match=r"'(break|continue)' (outside|not properly in) loop"
    ):
        compiled(source)


@pytest.mark.parametrize(
    ("literal", "text"), [(r"\ud83d\ude00", "😀"), (r"a\ud800b", "a�b"), (r"\udc00", "�")]
)
def test_half_characters_of_a_template_are_joined_or_replaced(literal: str, text: str) -> None:
    assert rendered(f"{{{{ '{literal}' }}}}") == text
    with pytest.raises(TemplateRenderError, match=text):
        rendered(f"{{{{ raise_exception('{literal}') }}}}")


def test_raise_exception_is_told_in_the_templates_own_words() -> None:
    with pytest.raises(TemplateRenderError) as caught:
        rendered("{{ raise_exception('roles must alternate') }}")
    assert str(caught.value) == "Model's chat template raised an exception: 'roles must alternate'"


def test_failing_expression_names_its_line() -> None:
    with pytest.raises(TemplateRenderError, match="line 2: TypeError"):
        rendered("a\n{{ 1 + 'x' }}")


@pytest.mark.parametrize(
    "source",
    ["{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
     "{{ messages[0].update({}) }}",
     "{% set ns = namespace(__class__=1) %}",
     "{% set ns = namespace() %}{% set ns.__class__ = 1 %}"],
)  # fmt: skip
def test_template_cannot_leave_its_sandbox(source: str) -> None:
    with pytest.raises(TemplateRenderError, match="SecurityError"):
        rendered(source)


def test_global_dict_is_not_the_type() -> None:
    assert rendered("{{ dict.update is defined }}{{ dict.mro is defined }}") == "FalseFalse"


def test_endless_output_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "MAX_PROMPT_CHARS", 1000)
    with pytest.raises(TemplateRenderError, match="more than 1000 characters"):
        rendered("{% for i in range(99999) %}0123456789{% endfor %}")
