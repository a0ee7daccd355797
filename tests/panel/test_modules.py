"""What the panel's modules compute, in the browser that runs them."""

from typing import Any

import pytest

from tests.panel.browser import Page


@pytest.fixture
def shell(page: Page) -> Page:
    """Any page: modules are loaded from its origin."""
    page.open("/nowhere")
    return page


def call(page: Page, module: str, function: str, *arguments: Any) -> Any:
    """What a function of a module gives."""
    result = page.driver.execute_async_script(
        """
        const [module, name, given, done] = arguments;
        import(`/static/${module}`).then(
          (loaded) => done({ value: loaded[name](...given) }),
          (error) => done({ error: String(error) }),
        );
        """,
        module,
        function,
        arguments,
    )
    assert "error" not in result, result
    return result["value"]


def test_addresses_are_shown_as_a_browser_reaches_them(shell: Page) -> None:
    for typed, host, address, has_note in (
        ("0.0.0.0:8061", "10.0.0.5", "10.0.0.5:8061", True),
        ("[::]:8061", "[2001:db8::1]", "[2001:db8::1]:8061", True),
        ("0.0.0.0:8061", "panel.example.com", "panel.example.com:8061", True),
        ("127.0.0.1:8061", "10.0.0.5", "127.0.0.1:8061", True),
        ("localhost:8061", "10.0.0.5", "localhost:8061", True),
        ("[::1]:8061", "10.0.0.5", "[::1]:8061", True),
        ("10.0.0.7:8061", "10.0.0.5", "10.0.0.7:8061", False),
        ("balancer.internal:8061", "10.0.0.5", "balancer.internal:8061", False),
    ):
        shown = call(shell, "configuration.js", "reachableAddress", typed, host)
        assert (shown["address"], shown["note"] != "") == (address, has_note)


def test_the_agent_command_has_what_the_management_service_asks_for(shell: Page) -> None:
    attributes = {
        "managementAddr": "10.0.0.7:8060",
        "tlsListeners": "--inference-addr --management-addr",
        "asksForManagementToken": "yes",
    }
    script = """
        const [attributes, done] = arguments;
        Promise.all([import("/static/configuration.js"), import("/static/add_agent.js")]).then(
          ([{ readConfiguration }, { agentCommand }]) =>
            done(agentCommand(readConfiguration(attributes))));
        """
    command = shell.driver.execute_async_script(script, attributes)
    flags = "--management-tls --management-token-file FILE --slots 4"
    assert command == f"paddler agent --management-addr 10.0.0.7:8060 {flags}"


def test_what_is_not_seen_is_no_part_of_a_name(shell: Page) -> None:
    for name, shown in (
        ("gpu-1", "gpu-1"),
        ("\u202eevil\u200b", "evil"),
        ("\u200b\ufeff", "unnamed abcdef"),
        ("a\nb", "ab"),
        (None, "unnamed abcdef"),
        ("ゲーム 👩\u200d🔧", "ゲーム 👩\u200d🔧"),
    ):
        agent = {"id": "abcdef-1", "name": name}
        assert call(shell, "format.js", "agentName", agent) == shown


def test_lengths_of_time_and_sizes_are_short(shell: Page) -> None:
    for seconds, words in (
        (0, "0 s"),
        (59.4, "59 s"),
        (61, "1 min 1 s"),
        (3725, "1 h 2 min"),
        (90_000, "1 day 1 h"),
        (-3, "0 s"),
    ):
        assert call(shell, "format.js", "formatDuration", seconds) == words
    for size, words in ((0, "0 B"), (999, "999 B"), (1024, "1 KiB"), (1_610_612_736, "1.5 GiB")):
        assert call(shell, "format.js", "formatBytes", size) == words


def test_scales_end_at_a_number_that_reads_well(shell: Page) -> None:
    for value, top in ((1, 1), (1.2, 1.5), (7, 8), (10, 10), (31, 40), (999, 1000), (1001, 1500)):
        assert call(shell, "charts.js", "roundedUp", value) == pytest.approx(top)


def test_an_unknown_issue_is_shown_as_it_came(shell: Page) -> None:
    told = call(shell, "issues.js", "describeIssue", {"FromTheFuture": {"code": 7}})
    assert told["title"] == "FromTheFuture"
    assert '"code": 7' in told["more"]["text"]


def test_a_file_from_an_address_is_called_by_its_address(shell: Page) -> None:
    agent = {"model_path": "/root/.cache/paddler/0123456789abcdef"}
    url = "https://models.example.com/q/Tiny%20Model.gguf?token=1"
    desired = {"fingerprint": "f", "model": {"Url": {"url": url}}}
    facts = {"details": {"applied_state": "f"}}
    module, function = "agent_condition.js", "modelName"
    assert call(shell, module, function, agent, facts, desired) == "Tiny Model.gguf"
    facts = {"details": {"applied_state": "another"}}
    assert call(shell, module, function, agent, facts, desired) == "0123456789abcdef"
