"""What browsers tell of where a request comes from."""

import pytest

from paddler.net.cors import Cors
from paddler.net.origins import is_from_own_page, is_same_host, split_host_field
from paddler.proto.events import Headers


@pytest.mark.parametrize(
    ("field", "split"),
    [
        ("localhost", ("localhost", None)),
        ("localhost:8062", ("localhost", 8062)),
        ("LocalHost:8062", ("localhost", 8062)),
        ("panel.example.com.", ("panel.example.com", None)),
        ("panel.example.com.:443", ("panel.example.com", 443)),
        ("panel_1.example.com", ("panel_1.example.com", None)),
        ("127.0.0.1:8062", ("127.0.0.1", 8062)),
        ("[::1]", ("::1", None)),
        ("[::1]:8062", ("::1", 8062)),
        ("[FE80::1%25eth0]:80", ("fe80::1%25eth0", 80)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        (" localhost ", ("localhost", None)),
        ("localhost:", ("localhost", None)),
        ("", None),
        (".", None),
        ("a..b", None),
        (".local", None),
        (":8062", None),
        ("user@localhost", None),
        ("user:secret@localhost:80", None),
        ("localhost/evil", None),
        ("localhost:80:80", None),
        ("localhost:port", None),
        ("::1", None),
        ("[::1", None),
        ("a b", None),
        ("bücher.example", None),
    ],
)
def test_a_host_field_is_split_strictly(field: str, split: tuple[str, int | None] | None) -> None:
    assert split_host_field(field) == split


@pytest.mark.parametrize(
    ("fields", "is_own"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://panel:8062"}, False),
        ({"sec-fetch-site": "same-origin", "origin": "https://public.example:8443"}, True),
        ({"origin": "http://panel:8062"}, True),
        ({"origin": "http://panel:3000"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "https://a.example", "x-forwarded-host": "a.example"}, True),
        ({"origin": "https://a.example:8443", "x-forwarded-host": "a.example:8443"}, True),
        ({"origin": "https://a.example", "x-forwarded-host": "b.example, a.example"}, True),
        ({"origin": "https://a.example", "x-forwarded-host": "b.example"}, False),
    ],
)
def test_a_request_is_the_pages_own_by_what_browsers_say(
    fields: dict[str, str], is_own: bool
) -> None:
    headers = Headers([("host", "panel:8062"), *fields.items()])
    assert is_from_own_page(headers) is is_own


@pytest.mark.parametrize(
    ("origin", "host", "is_same"),
    [
        ("http://a:80", "a", True),
        ("http://a", "a:80", True),
        ("https://a", "a", True),  # TLS ends at a proxy
        ("https://a", "a:443", True),
        ("http://a", "a:443", False),
        ("https://A.example.", "a.EXAMPLE", True),
        ("http://[::1]:8062", "[::1]:8062", True),
        ("http://[::1]:8062", "[::2]:8062", False),
        ("http://user@a", "a", False),
        ("ftp://a", "a", False),
        ("http://a:port", "a", False),
        ("http://[::1", "[::1]", False),
        ("file://", "a", False),
        ("http://a", "", False),
    ],
)
def test_an_origin_is_compared_by_host_and_port(origin: str, host: str, is_same: bool) -> None:
    assert is_same_host(origin, [host]) is is_same


ALLOWED = Cors(frozenset({"https://app.example.com"}))


@pytest.mark.parametrize(
    ("fields", "is_foreign"),
    [
        ({}, False),
        ({"origin": "https://app.example.com", "host": "other:1"}, False),
        ({"origin": "http://here:8061", "host": "here:8061"}, False),
        ({"origin": "https://evil.example", "host": "here:8061"}, True),
        ({"origin": "null", "host": "here:8061"}, True),
        ({"origin": "https://evil.example", "host": "here", "sec-fetch-site": "cross-site"}, True),
        ({"origin": "https://evil.example", "host": "evil.example:1"}, True),
    ],
)
def test_a_page_is_foreign_unless_it_is_ours_or_allowed(
    fields: dict[str, str], is_foreign: bool
) -> None:
    assert ALLOWED.is_foreign(Headers(fields.items())) is is_foreign
