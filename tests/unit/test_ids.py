"""Ids: one by one and many at once, each above the one before."""

from __future__ import annotations

from core import ids


def test_many_ids_stand_in_order_among_those_made_one_by_one() -> None:
    made = [ids.new_id(), *ids.new_ids(5000), ids.new_id(), *ids.new_ids(1), *ids.new_ids(0), ids.new_id()]
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {20}
    assert all(ids.from_host(ids.on_host(one)) == one for one in made)
