from paddler.balancer.journal import MAX_EVENTS, Journal


def test_events_are_numbered_and_timed() -> None:
    journal = Journal(clock=lambda: 12.3456)
    journal.add("agent_joined", "a joined", agent_id="1", agent_name="a", detail={"x": 1})
    (event,) = journal.after(0)
    assert (event.id, event.at, event.text, event.detail) == (1, 12.346, "a joined", {"x": 1})


def test_only_events_behind_an_id_are_told() -> None:
    journal = Journal()
    for number in range(5):
        journal.add("agent_joined", str(number))
    assert [event.id for event in journal.after(3)] == [4, 5]
    assert journal.after(5) == []
    assert journal.last_id == 5


def test_the_oldest_events_are_forgotten() -> None:
    journal = Journal()
    for number in range(MAX_EVENTS + 10):
        journal.add("agent_joined", str(number))
    events = journal.after(0)
    assert (len(events), events[0].id) == (MAX_EVENTS, 11)


def test_watchers_are_told_until_they_leave() -> None:
    journal = Journal()
    told: list[int] = []

    def watch() -> None:
        told.append(journal.last_id)

    journal.watch(watch)
    journal.add("agent_joined", "a")
    journal.unwatch(watch)
    journal.add("agent_joined", "b")
    assert told == [1]
