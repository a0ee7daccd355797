import pytest

from paddler.errors import ClientError, ConfigError, PaddlerError, RemoteProtocolError, StartError


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PaddlerError("x"), 500, "internal_error"),
        (ClientError("x"), 400, "bad_request"),
        (ClientError("x", status=501, code="not_there"), 501, "not_there"),
        (RemoteProtocolError("x"), 400, "protocol_error"),
        (RemoteProtocolError("x", status=413), 413, "protocol_error"),
        (ConfigError("x"), 500, "bad_config"),
        (StartError("x"), 500, "cannot_start"),
    ],
)
def test_errors_carry_a_message_a_status_and_a_code(
    error: PaddlerError, status: int, code: str
) -> None:
    assert (str(error), error.status, error.code) == ("x", status, code)


def test_a_protocol_error_carries_a_close_code() -> None:
    assert RemoteProtocolError("x").close_code == 1002
    assert RemoteProtocolError("x", close_code=1007).close_code == 1007


def test_one_errors_status_is_not_the_next_ones() -> None:
    assert ClientError("x", status=501).status == 501
    assert ClientError("x").status == 400
