from paddler.balancer.journal import MAX_EVENTS, MAX_TEXT_CHARACTERS, Journal


def test_events_are_numbered_and_timed() -> None:
    journal = Journal(clock=lambda: 12.3456)
    journal.add("agent_joined", "a joined", agent_id="1", agent_name="a", detail={"x": 1})
    (event,) = journal.after(0)
    assert (event.id, event.at, event.text, event.detail) == (12346, 12.346, "a joined", {"x": 1})


def test_only_events_behind_an_id_are_told() -> None:
    journal = Journal()
    ids = [journal.add("agent_joined", str(number)).id for number in range(5)]
    assert [event.id for event in journal.after(ids[2])] == ids[3:] == [ids[0] + 3, ids[0] + 4]
    assert journal.after(ids[4]) == []
    assert journal.last_id == ids[4]


def test_ids_go_up_over_restarts() -> None:
    before = Journal(clock=lambda: 1000.0)
    for number in range(10):
        before.add("agent_joined", str(number))
    after = Journal(clock=lambda: 1001.0)
    event = after.add("agent_joined", "again")
    assert after.after(before.last_id) == [event]


def test_an_id_from_before_the_clock_was_put_back_hides_nothing() -> None:
    before = Journal(clock=lambda: 1000.0)
    old = before.add("agent_joined", "before")
    after = Journal(clock=lambda: 900.0)
    event = after.add("agent_joined", "again")
    assert after.after(old.id) == [event]


def test_ids_go_up_whatever_the_clock_does() -> None:
    now = iter((1000.0, 1001.0, 500.0, 2000.0, 0.0))
    journal = Journal(clock=lambda: next(now))
    ids = [journal.add("agent_joined", str(number)).id for number in range(4)]
    assert ids == [1_000_001, 1_000_002, 1_000_003, 1_000_004]


def test_the_oldest_events_are_forgotten() -> None:
    journal = Journal()
    first = journal.last_id + 1
    for number in range(MAX_EVENTS + 10):
        journal.add("agent_joined", str(number))
    events = journal.after(0)
    assert (len(events), events[0].id) == (MAX_EVENTS, first + 10)


def test_a_megabyte_is_not_kept() -> None:
    journal = Journal()
    long = "x" * 1_000_000
    detail = {"issue": {"Some": {"model_path": long}}, "list": [long], "short": "x", "number": 1}
    event = journal.add("issue_raised", long, detail=detail)
    clipped = "x" * (MAX_TEXT_CHARACTERS - 1) + "…"
    assert event.text == clipped
    assert event.detail == {
        "issue": {"Some": {"model_path": clipped}},
        "list": [clipped],
        "short": "x",
        "number": 1,
    }


def test_watchers_are_told_until_they_leave() -> None:
    journal = Journal()
    told: list[int] = []

    def watch() -> None:
        told.append(journal.last_id)

    journal.watch(watch)
    event = journal.add("agent_joined", "a")
    journal.unwatch(watch)
    journal.add("agent_joined", "b")
    assert told == [event.id]
