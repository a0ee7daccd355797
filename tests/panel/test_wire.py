"""The names that the panel knows of the wire are those that the balancer uses."""

import re
from pathlib import Path
from typing import Any, Final, get_args

import pytest

import paddler
from paddler.balancer.history import Sample
from paddler.balancer.journal import Event, EventKind
from paddler.messages import agents, operations, panel, state

STATIC: Final = Path(paddler.__file__).parent / "static"
LIST: Final = re.compile(r"export const (\w+) = Object\.freeze\(\[(.*?)\]\)", re.DOTALL)


def lists_of(module: str) -> dict[str, list[str]]:
    """The constant lists of texts that a module exports."""
    source = (STATIC / module).read_text()
    return {name: re.findall(r'"([^"]*)"', body) for name, body in LIST.findall(source)}


def fields(*structs: Any) -> set[str]:
    return {name for struct in structs for name in struct.__struct_encode_fields__}


EXPECTED: Final[dict[str, set[str]]] = {
    "APPLICATION_STATUSES": set(get_args(agents.StateApplicationStatus)),
    "AGENT_PHASES": set(get_args(agents.AgentPhase)),
    "AGENT_FIELDS": fields(agents.AgentSnapshot),
    "DETAIL_FIELDS": fields(agents.AgentDetails),
    "FACT_FIELDS": fields(panel.AgentFacts),
    "ISSUES": fields(agents.AgentIssue),
    "ISSUE_DETAIL_FIELDS": fields(
        agents.ModelPath, agents.HubLock, agents.TemplateError, agents.SlotError
    ),
    "SAMPLE_FIELDS": fields(Sample),
    "EVENT_FIELDS": fields(Event),
    "EVENT_KINDS": set(get_args(EventKind)),
    "MODEL_SOURCES": fields(state.ModelSource),
    "HUGGING_FACE_FIELDS": fields(state.HuggingFaceModel),
    "URL_FIELDS": fields(state.UrlModel),
    "CHAT_TEMPLATE_FIELDS": fields(state.ChatTemplate),
    "KV_CACHE_DTYPES": set(get_args(state.KvCacheDtype)),
    "POOLING_TYPES": set(get_args(state.PoolingType)),
    "PARAMETER_FIELDS": fields(state.InferenceParameters),
    "DESIRED_STATE_FIELDS": fields(state.DesiredState),
    "STATE_SUMMARY_FIELDS": fields(panel.StateSummary),
    "TEMPLATE_TRIAL_FIELDS": fields(operations.TemplateTrial),
    "TEMPLATE_RESULT_FIELDS": fields(operations.TemplateResult),
    "HELLO_FIELDS": fields(panel.Hello),
    "AGENTS_CHANGE_FIELDS": fields(panel.AgentsChange),
    "FACTS_CHANGE_FIELDS": fields(panel.FactsChange),
    "RATES_FIELDS": fields(panel.Rates),
    "BUFFER_LEVEL_FIELDS": fields(panel.BufferLevel),
    "SAMPLES_FIELDS": fields(panel.Samples),
    "EVENTS_FIELDS": fields(panel.Events),
    "STREAM_EVENTS": {
        "hello",
        "agents",
        "facts",
        "rates",
        "buffer",
        "state",
        "samples",
        "events",
    },
}


def test_every_list_of_names_is_compared() -> None:
    assert set(lists_of("wire.js")) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_names_of_the_wire_are_the_balancers(name: str) -> None:
    names = lists_of("wire.js")[name]
    assert len(names) == len(set(names))
    assert set(names) == EXPECTED[name]


@pytest.mark.parametrize(
    ("module", "known"),
    [("issues.js", EXPECTED["ISSUES"]), ("events.js", EXPECTED["EVENT_KINDS"])],
)
def test_every_issue_and_event_has_words(module: str, known: set[str]) -> None:
    source = (STATIC / module).read_text()
    words = source[source.index("Record<string, ") :]
    words = words[: words.index("\n};")]
    assert set(re.findall(r"^  (\w+): [{\[]", words, re.MULTILINE)) == known


def test_types_are_what_the_lists_say() -> None:
    """The types are checked by tsc to have no other names; here, that they have all of them."""
    source = (STATIC / "wire.js").read_text()
    for name, struct in (
        ("AgentSnapshot", agents.AgentSnapshot),
        ("AgentDetails", agents.AgentDetails),
        ("AgentFacts", panel.AgentFacts),
        ("Sample", Sample),
        ("FleetEvent", Event),
        ("InferenceParameters", state.InferenceParameters),
        ("DesiredState", state.DesiredState),
    ):
        body = re.search(
            rf"@typedef \{{\{{\n((?:(?!\}}\}}).)*?) \* \}}\}} {name}\b", source, re.DOTALL
        )
        assert body is not None, name
        assert set(re.findall(r"^ \*   (\w+)\??:", body[1], re.MULTILINE)) == fields(struct)


def test_no_module_sets_markup_or_reaches_out() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://cdn"
    )
    for path in STATIC.glob("*.js"):
        source = path.read_text()
        assert source.startswith("// @ts-check\n"), path.name
        assert forbidden.search(source) is None, path.name
    assert "style=" not in (STATIC / "index.html").read_text()
