"""The slot table: who is chosen, what a lease is worth, and what a removed row leaves."""

import os
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from paddler import _fastpath
from tests import fastpath_twin
from tests.fastpath_impls import IMPLS, outcome


def table_of(impl: ModuleType, *limits: int) -> _fastpath.SlotTable:
    """A table with one row for each of ``limits``."""
    table: _fastpath.SlotTable = impl.SlotTable(capacity=max(len(limits), 1))
    for limit in limits:
        table.add(limit)
    return table


def claimed_rows(table: _fastpath.SlotTable, claims: int) -> list[int]:
    """The rows that ``claims`` claims in a row get; -1 where nothing is free."""
    return [table.row_of(table.claim()) for _ in range(claims)]


# --- rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_new_table_is_empty(impl: ModuleType) -> None:
    table = impl.SlotTable()
    assert (table.rows, table.busy_total, table.limit_total) == (0, 0, 0)
    assert table.claim() == 0


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("capacity", [-1, 0, (1 << 24) + 1])
def test_table_of_impossible_capacity_is_refused(impl: ModuleType, capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        impl.SlotTable(capacity)


@pytest.mark.parametrize("impl", IMPLS)
def test_full_table_takes_no_row_and_names_its_capacity(impl: ModuleType) -> None:
    table = table_of(impl, 1, 1, 1)
    with pytest.raises(ValueError, match="3"):
        table.add(1)


@pytest.mark.parametrize("impl", IMPLS)
def test_totals_count_live_rows_only(impl: ModuleType) -> None:
    table = table_of(impl, 4, 5, 6)
    claimed_rows(table, 3)
    table.remove(1)
    assert (table.rows, table.busy_total, table.limit_total) == (2, 2, 10)


@pytest.mark.parametrize("impl", IMPLS)
def test_removed_row_is_used_again_and_begins_free(impl: ModuleType) -> None:
    table = table_of(impl, 1, 1, 1)
    claimed_rows(table, 3)
    table.remove(1)
    assert table.add(7) == 1
    assert (table.busy(1), table.limit(1)) == (0, 7)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("row", [-1, 1, 2, 3, 1 << 40])
def test_row_that_is_not_in_the_table_is_an_index_error(impl: ModuleType, row: int) -> None:
    table = impl.SlotTable(capacity=3)
    table.add(1)
    table.add(1)
    table.remove(1)
    for call in (table.remove, table.busy, table.limit):
        assert outcome(call, row) is IndexError
    assert outcome(table.set_limit, row, 1) is IndexError


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("limit", [-1, 32768, 1 << 40])
def test_limit_beyond_int16_is_refused(impl: ModuleType, limit: int) -> None:
    table = table_of(impl, 3)
    with pytest.raises(ValueError, match=r"limit|slots"):
        table.set_limit(0, limit)
    with pytest.raises(ValueError, match=r"limit|slots"):
        impl.SlotTable().add(limit)
    assert table.limit(0) == 3


# --- claims ----------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_claims_go_round_while_rows_are_equally_busy(impl: ModuleType) -> None:
    assert claimed_rows(table_of(impl, 2, 2, 2), 7) == [0, 1, 2, 0, 1, 2, -1]


@pytest.mark.parametrize("impl", IMPLS)
def test_claims_go_round_although_slots_are_given_back(impl: ModuleType) -> None:
    table = table_of(impl, 4, 4, 4)
    rows = []
    for _ in range(5):
        lease = table.claim()
        rows.append(table.row_of(lease))
        table.release(lease)
    assert rows == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("impl", IMPLS)
def test_the_least_busy_row_is_chosen_however_few_slots_it_has(impl: ModuleType) -> None:
    assert claimed_rows(table_of(impl, 9, 1, 9), 6) == [0, 1, 2, 0, 2, 0]


@pytest.mark.parametrize("impl", IMPLS)
def test_row_of_no_slots_is_never_chosen(impl: ModuleType) -> None:
    assert claimed_rows(table_of(impl, 0, 1, 0), 2) == [1, -1]


@pytest.mark.parametrize("impl", IMPLS)
def test_row_lowered_below_its_busy_count_rests_until_it_drained(impl: ModuleType) -> None:
    table = table_of(impl, 3)
    leases = [table.claim() for _ in range(3)]
    table.set_limit(0, 1)
    assert table.claim() == 0
    assert [table.release(lease) for lease in leases[:2]] == [True, True]
    assert (table.busy(0), table.claim()) == (1, 0)
    table.release(leases[2])
    assert table.claim() > 0


@pytest.mark.parametrize("impl", IMPLS)
def test_row_can_be_filled_to_the_largest_limit(impl: ModuleType) -> None:
    table = table_of(impl, 32767)
    assert set(claimed_rows(table, 32767)) == {0}
    assert (table.busy(0), table.claim()) == (32767, 0)


@settings(deadline=None)
@given(
    rows=st.sampled_from([1, 255, 256, 257, 600]),
    slots=st.dictionaries(st.integers(0, 599), st.integers(1, 3), max_size=8),
    first=st.integers(0, 599),
)
def test_rows_are_chosen_as_the_twin_does_across_blocks(
    rows: int, slots: dict[int, int], first: int
) -> None:
    chosen = []
    for impl in (_fastpath, fastpath_twin):
        table = table_of(impl, *[0] * rows)
        table.set_limit(first % rows, 1)
        table.claim()  # the rotation begins behind this row
        for row, limit in slots.items():
            table.set_limit(row % rows, limit)
        chosen.append(claimed_rows(table, sum(slots.values()) + 1))
    assert chosen[0] == chosen[1]


# --- leases ----------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", IMPLS)
def test_lease_is_given_back_exactly_once(impl: ModuleType) -> None:
    table = table_of(impl, 2)
    lease, other = table.claim(), table.claim()
    assert [table.release(lease), table.release(lease)] == [True, False]
    assert (table.row_of(lease), table.row_of(other), table.busy_total) == (-1, 0, 1)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("lease", [-(1 << 63), -1, 0, 7, 1 << 32, 1 << 62])
def test_unknown_lease_is_worth_nothing(impl: ModuleType, lease: int) -> None:
    table = table_of(impl, 2)
    assert (table.release(lease), table.row_of(lease)) == (False, -1)


@pytest.mark.parametrize("impl", IMPLS)
def test_lease_of_a_removed_row_is_void_even_when_the_row_is_used_again(impl: ModuleType) -> None:
    table = table_of(impl, 2)
    lease = table.claim()
    table.remove(0)
    assert table.row_of(lease) == -1
    table.add(2)
    table.claim()
    assert (table.row_of(lease), table.release(lease), table.busy(0)) == (-1, False, 1)


@pytest.mark.parametrize("impl", IMPLS)
def test_lease_is_a_positive_number_that_is_not_used_again(impl: ModuleType) -> None:
    table = table_of(impl, 3000)
    leases = []
    for _ in range(3):
        round_of_leases = [table.claim() for _ in range(3000)]
        leases += round_of_leases
        assert all(table.release(lease) for lease in round_of_leases)
    assert len(set(leases)) == len(leases)
    assert all(0 < lease < 1 << 63 for lease in leases)
    assert not any(table.release(lease) for lease in leases)
    assert table.busy_total == 0


class TablesAgree(RuleBasedStateMachine):
    """The compiled table and the twin go through the same life, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled = _fastpath.SlotTable(capacity=5)
        self.plain = fastpath_twin.SlotTable(capacity=5)
        self.leases: list[tuple[int, int]] = []

    @rule(limit=st.integers(-1, 4))
    def add(self, limit: int) -> None:
        assert outcome(self.compiled.add, limit) == outcome(self.plain.add, limit)

    @rule(row=st.integers(-1, 5))
    def remove(self, row: int) -> None:
        assert outcome(self.compiled.remove, row) == outcome(self.plain.remove, row)

    @rule(row=st.integers(-1, 5), limit=st.integers(-1, 4))
    def set_limit(self, row: int, limit: int) -> None:
        assert outcome(self.compiled.set_limit, row, limit) == outcome(
            self.plain.set_limit, row, limit
        )

    @rule(preferred=st.integers(-2, 6))
    def claim(self, preferred: int) -> None:
        lease = self.compiled.claim(preferred), self.plain.claim(preferred)
        assert self.compiled.row_of(lease[0]) == self.plain.row_of(lease[1])
        self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release_any_lease_again_or_not(self, data: st.DataObject) -> None:
        compiled, plain = data.draw(st.sampled_from(self.leases))
        assert self.compiled.release(compiled) == self.plain.release(plain)

    @invariant()
    def tables_look_the_same(self) -> None:
        for row in range(-1, 6):
            assert outcome(self.compiled.busy, row) == outcome(self.plain.busy, row)
            assert outcome(self.compiled.limit, row) == outcome(self.plain.limit, row)
        assert self.compiled.rows == self.plain.rows
        assert self.compiled.busy_total == self.plain.busy_total
        assert self.compiled.limit_total == self.plain.limit_total
        for compiled, plain in self.leases:
            assert self.compiled.row_of(compiled) == self.plain.row_of(plain)


TablesAgree.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
test_slot_tables_agree_through_any_life = TablesAgree.TestCase


@pytest.mark.parametrize("impl", IMPLS)
def test_a_preferred_row_wins_ties_and_no_more(impl: ModuleType) -> None:
    table = table_of(impl, 2, 1, 2)
    chosen = [table.row_of(table.claim(preferred)) for preferred in (1, 1, 1, 2, 2, 2)]
    assert chosen == [1, 0, 2, 2, 0, -1]


# --- processes -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_processes_share_the_slots_and_never_overfill_a_row() -> None:
    limits = [3, 0, 250, 40, 1, 700, 6] * 4
    table = table_of(_fastpath, *limits)
    counts, children = os.pipe(), []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            claims = 0
            while table.claim():
                claims += 1
            os.write(counts[1], claims.to_bytes(4))
            os._exit(0)
        children.append(pid)
    os.close(counts[1])
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    with os.fdopen(counts[0], "rb") as reader:
        claimed = sum(int.from_bytes(reader.read(4)) for _ in children)
    assert claimed == table.busy_total == table.limit_total == sum(limits)
    assert [table.busy(row) for row in range(len(limits))] == limits
