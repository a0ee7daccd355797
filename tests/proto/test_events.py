"""Header fields as records."""

from paddler.proto.events import Headers

FIELDS = Headers([("accept", "a"), ("connection", "Keep-Alive , x,"), ("connection", "UPGRADE")])


def test_headers_get_gives_the_first_value_or_the_default() -> None:
    assert FIELDS.get("connection") == "Keep-Alive , x,"
    assert FIELDS.get("host") is None
    assert FIELDS.get("host", "none") == "none"


def test_headers_get_all_keeps_the_order_of_arrival() -> None:
    assert FIELDS.get_all("connection") == ["Keep-Alive , x,", "UPGRADE"]


def test_headers_tokens_join_fields_and_skip_empty_members() -> None:
    assert FIELDS.tokens("connection") == ["keep-alive", "x", "upgrade"]
    assert FIELDS.tokens("host") == []


def test_headers_are_a_collection_of_pairs_and_values_themselves() -> None:
    assert "accept" in FIELDS
    assert "host" not in FIELDS
    assert len(FIELDS) == 3
    assert Headers(FIELDS) == FIELDS
    assert hash(Headers(FIELDS)) == hash(FIELDS)
    assert [*FIELDS] != FIELDS
    assert repr(Headers([("a", "b")])) == "Headers([('a', 'b')])"
