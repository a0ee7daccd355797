from collections.abc import Callable

import pytest

from paddler.balancer.pool import Agent, Pool
from paddler.messages.agents import AgentStatus


class Link:
    """A link that remembers whether it was replaced."""

    def __init__(self) -> None:
        self.was_replaced = False

    def send_state(self, *_: object, **__: object) -> None:
        pass

    def replace(self) -> None:
        self.was_replaced = True


def status(slots: int) -> AgentStatus:
    return AgentStatus(desired_slots_total=max(slots, 1), slots_total=slots)


@pytest.fixture
def pool() -> Pool:
    return Pool()


def join(pool: Pool, name: str, slots: int) -> Agent:
    return pool.join(f"id-{name}", name, status(slots), Link())


def counting(pool: Pool) -> Callable[[], int]:
    changes: list[None] = []
    pool.watch(lambda: changes.append(None))
    return lambda: len(changes)


def test_an_empty_pool_has_no_slot(pool: Pool) -> None:
    assert pool.claim() is None
    assert pool.snapshot().agents == ()


def test_claims_go_to_the_least_busy_agent(pool: Pool) -> None:
    for name in "abc":
        join(pool, name, 2)
    leases = [pool.claim() for _ in range(6)]
    owners = [lease.agent.name for lease in leases if lease is not None]
    assert sorted(owners[:3]) == sorted(owners[3:]) == ["a", "b", "c"]
    assert pool.claim() is None


def test_a_preferred_agent_wins_among_equally_busy_ones(pool: Pool) -> None:
    agents = [join(pool, name, 2) for name in "abc"]
    chosen = [pool.claim(agents[1]) for _ in range(4)]
    assert [lease.agent.name for lease in chosen if lease] == ["b", "a", "c", "b"]


def test_a_lease_is_given_back_exactly_once(pool: Pool) -> None:
    join(pool, "a", 2)
    lease = pool.claim()
    assert lease is not None
    assert pool.slots_busy == 1
    lease.release()
    lease.release()
    assert pool.slots_busy == 0


def test_a_lease_on_an_agent_that_left_frees_nothing_of_its_successor(pool: Pool) -> None:
    first = join(pool, "a", 1)
    stale = pool.claim()
    assert stale is not None
    assert pool.leave(first)
    join(pool, "b", 1)
    assert pool.claim() is not None
    stale.release()
    assert pool.slots_busy == 1


def test_an_agent_without_ready_slots_is_never_chosen(pool: Pool) -> None:
    agent = join(pool, "a", 0)
    assert pool.claim() is None
    pool.update(agent, status(1))
    assert pool.claim() is not None


def test_a_report_never_changes_the_slots_in_use(pool: Pool) -> None:
    agent = join(pool, "a", 2)
    pool.claim()
    pool.update(agent, status(4))
    (shown,) = pool.snapshot().agents
    assert (shown.slots_processing, shown.slots_total) == (1, 4)


def test_an_agent_that_dials_again_replaces_its_older_connection(pool: Pool) -> None:
    old_link, new_link = Link(), Link()
    old = pool.join("same", "a", status(1), old_link)
    pool.join("same", "a", status(1), new_link)
    assert old_link.was_replaced
    assert not new_link.was_replaced
    assert not pool.leave(old)
    assert len(pool.agents) == 1


def test_agents_are_listed_by_name_and_unnamed_ones_last(pool: Pool) -> None:
    pool.join("1", None, status(1), Link())
    pool.join("2", "b", status(1), Link())
    pool.join("3", "a", status(1), Link())
    assert [agent.name for agent in pool.agents] == ["a", "b", None]


def test_watchers_hear_of_every_change_and_of_nothing_else(pool: Pool) -> None:
    changes = counting(pool)
    agent = join(pool, "a", 1)
    assert changes() == 1
    lease = pool.claim()
    assert lease is not None
    assert changes() == 2
    assert pool.claim() is None
    assert changes() == 2
    lease.release()
    assert changes() == 3
    lease.release()
    pool.update(agent, status(1))
    assert changes() == 3
    pool.leave(agent)
    pool.leave(agent)
    pool.update(agent, status(2))
    assert changes() == 4
    assert [agent.id for agent in pool.agents] == []


def test_labels_name_agents_plainly(pool: Pool) -> None:
    assert join(pool, "gpu-1", 1).label == 'agent "gpu-1"'
    assert pool.join("x", None, status(1), Link()).label == "unnamed agent"
