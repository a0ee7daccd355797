import pytest

from paddler.agent import app


def test_no_agent_is_called_like_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["-D28", "-", "D28-"])
    monkeypatch.setattr(app, "new_id", lambda: next(drawn))
    assert app.agent_id() == "D28-"
