import pytest

from paddler.config import (
    join_address,
    parse_duration_ms,
    parse_host_name,
    parse_slots,
    parse_state_database,
    split_address,
)
from paddler.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8060", "127.0.0.1", 8060),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:8060", "::1", 8060),
        ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
        ("balancer.internal:80", "balancer.internal", 80),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    assert join_address(host, port) == text


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "expected host:port"),
        ("8060", "expected host:port"),
        ("localhost", "expected host:port"),
        (":8060", "expected host:port"),
        ("[]:8060", "expected host:port"),
        ("::1:8060", "in brackets"),
        ("a:", "the port must be"),
        ("a:http", "the port must be"),
        ("a:-1", "the port must be"),
        ("a:65536", "the port must be"),
        ("a:80 ", "the port must be"),
        ("http://a:80", "expected host:port alone"),
        ("*:8060", "0.0.0.0 or"),
    ],
)
def test_what_is_no_address_is_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice) as caught:
        split_address(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [
        ("0", 0),
        ("1500", 1500),
        ("1500ms", 1500),
        ("10s", 10_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
    ],
)
def test_a_duration_is_milliseconds_or_has_a_unit(text: str, duration_ms: int) -> None:
    assert parse_duration_ms(text) == duration_ms


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1.5s", "1 s", "1d", "10S", "1_000", "1" * 16, "٣"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected milliseconds"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("memory://", "memory://"),
        ("memory:", "memory://"),
        ("file:///var/lib/paddler/state.json", "file:///var/lib/paddler/state.json"),
        ("file:// /with space/state.json ", "file:///with space/state.json"),
    ],
)
def test_a_state_database_is_memory_or_a_file(text: str, url: str) -> None:
    assert parse_state_database(text) == url


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "expected memory:// or file://"),
        ("/var/lib/state.json", "expected memory:// or file://"),
        ("sqlite:///a", "expected memory:// or file://"),
        ("file://state.json", "for example file:///var/lib/state.json"),
        ("file://~/state.json", "for example file:///var/lib/state.json"),
        ("file://", "for example file:///var/lib/paddler-state.json"),
    ],
)
def test_another_state_database_is_refused_with_advice(text: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        parse_state_database(text)


def test_slots_are_counted_from_one() -> None:
    assert [parse_slots(text) for text in ("1", "8", "+8", "1024")] == [1, 8, 8, 1024]


@pytest.mark.parametrize("text", ["0", "-1", "1025", "", "four", "1.0", "1_0", "9999999999"])
def test_what_is_no_number_of_slots_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="from 1 to 1024"):
        parse_slots(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("panel.example.com", "panel.example.com"),
        ("Panel.Example.COM.", "panel.example.com"),
        ("balancer", "balancer"),
        ("*", "*"),
    ],
)
def test_a_host_name_is_kept_in_lower_case(text: str, name: str) -> None:
    assert parse_host_name(text) == name


@pytest.mark.parametrize(
    "text",
    ["", "https://panel.example.com", "panel.example.com:443", "*.example.com", "a..b", "a b"],
)
def test_what_is_no_host_name_alone_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="without scheme and port"):
        parse_host_name(text)
