import pytest

from paddler.agent.worker.chat_template import ChatTemplate
from paddler.agent.worker.history import ROLES, HistoryForm
from paddler.agent.worker.history_probe import HistoryProbe

# Writes whatever it is given, and says where something is missing.
OPEN = """
{%- for m in messages -%}
[{{ m.role }}]
{%- if m.content is string %}{{ m.content }}{% else -%}
{%- for part in m.content %}{{ part.text }}{% endfor %}{% endif -%}
{%- for call in m.tool_calls or [] %}({{ call.function.name }}){% endfor -%}
{%- endfor -%}
{{ tools | tojson if tools }}
"""
TEXT_ONLY = OPEN.replace("m.content is string", "m.content is string or true")
FROM = "{%- for m in messages -%}"


def refusing(condition: str) -> str:
    return OPEN.replace(
        FROM, f"{FROM}{{% if {condition} %}}{{{{ raise_exception('no') }}}}{{% endif %}}"
    )


def found(source: str) -> HistoryForm:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", nl_token="\n")
    probe = HistoryProbe(template, source)
    probe.find_conversation()
    probe.find_results()
    return probe.form


@pytest.mark.parametrize(
    ("source", "form"),
    [
        (OPEN, HistoryForm()),
        (TEXT_ONLY, HistoryForm(text_roles=ROLES)),
        (refusing("m.content is not string"), HistoryForm(text_roles=ROLES)),
        (refusing("m.role == 'tool' and m.content is not string"),
         HistoryForm(text_roles=frozenset({"tool"}))),
        (refusing("m.content is string"), HistoryForm(parts_roles=ROLES)),
        (refusing("m.role == 'system' and m.content is string"),
         HistoryForm(parts_roles=frozenset({"system"}))),
        (OPEN.replace("{{ part.text }}", "{{ m.content[0].text }}"), HistoryForm(text_roles=ROLES)),
        ("{{ tools | length }}" + OPEN, HistoryForm(no_tools=())),
        (refusing("m.role == 'system'"), HistoryForm(merged_roles=frozenset({"system"}))),
        (OPEN.replace(FROM, "{%- for m in messages if m.role in ('user', 'assistant') -%}"),
         HistoryForm(merged_roles=frozenset({"system", "tool"}))),
        ("{# developer #}" + OPEN, HistoryForm(knows_developer=True)),
        ("{# developer #}" + refusing("m.role == 'developer'"), HistoryForm()),
        (refusing("m.thinking and m.content"), HistoryForm(thoughts_replace_content=True)),
        (refusing("(m.tool_calls or []) | length > 1"), HistoryForm(single_calls=True)),
        (OPEN.replace("tools | tojson if tools", "messages[0].tools"),
         HistoryForm(tools_in_system=True)),
        (OPEN.replace("{{ tools | tojson if tools }}", ""), HistoryForm()),
        ("{{ raise_exception('no') }}", HistoryForm(text_roles=ROLES)),
    ],
)  # fmt: skip
def test_form_is_what_the_template_understands(source: str, form: HistoryForm) -> None:
    assert found(source) == form
