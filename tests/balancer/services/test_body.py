import msgspec
import pytest

from paddler.balancer.services.body import read_json
from paddler.errors import ClientError
from paddler.net.http import Request
from paddler.proto.events import Headers


def request(body: bytes, content_type: str | None) -> Request:
    fields = [] if content_type is None else [("content-type", content_type)]
    return Request(method="POST", path="/", query="", headers=Headers(fields), body=body, params={})


decode = msgspec.json.Decoder(dict[str, int]).decode


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/json;charset=utf-8",
        "application/json ; x",
        "application/problem+json",
        "text/json",
    ],
)
def test_json_goes_by_many_names(content_type: str) -> None:
    assert read_json(request(b'{"a":1}', content_type), decode) == {"a": 1}


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "json",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/json-seq",
        "text/plain; a=application/json",
    ],
)
def test_other_types_are_refused(content_type: str | None) -> None:
    with pytest.raises(ClientError, match="Content type error") as caught:
        read_json(request(b"{}", content_type), decode)
    assert (caught.value.status, caught.value.code) == (400, "content_type")


@pytest.mark.parametrize("body", [b"", b"{", b'{"a":"b"}', b'{"a":1} x', b"\xff", b'{"\xff":1}'])
def test_a_body_that_cannot_be_decoded_is_the_clients_fault(body: bytes) -> None:
    with pytest.raises(ClientError, match="Json deserialize error: ") as caught:
        read_json(request(body, "application/json"), decode)
    assert (caught.value.status, caught.value.code) == (400, "json")
