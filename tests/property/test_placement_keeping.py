"""Work that is kept between calls: what was given back leaves no trace."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control.placement import engine
from control.placement.keeping import give_back
from control.placement.model import Shape
from control.placement.work import Work, start
from tests.property.oracle import Machine, view_of
from tests.property.test_placement_rules import SHAPES, machines, requests

POOLS = {"lan": list(range(4))}


def state(work: Work) -> dict[str, Any]:
    """All that decides about the next one, but for rules."""
    return {
        "left": work.left.tolist(), "instances": work.instances.tolist(), "taken": work.net_taken,
        "exit_s": work.exit_s.tolist(),
    }  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(hosts=machines(), shapes=st.lists(SHAPES, min_size=1, max_size=8), data=st.data())
def test_what_was_taken_and_given_back_leaves_no_trace(
    hosts: list[Machine], shapes: list[Shape], data: st.DataObject
) -> None:
    view = view_of(hosts, POOLS)
    work = start(view)
    before = copy.deepcopy(work)
    there = []
    for request in requests(shapes):
        (choice,) = engine.choose(view, [request], tell=False, work=work)
        if choice.host is not None:
            there.append((request.shape, choice.host, choice.datastore, work.now_s))
        work.now_s += 10.0
    for shape, host, store, taken_s in data.draw(st.permutations(there)):
        give_back(view, work, shape, host, str(store), taken_s)
    assert state(work) == state(before)
    for request in requests(shapes):  # and rules see the same as on a fresh one
        again = engine.choose(view, [request], work=copy.deepcopy(work))
        assert again == engine.choose(view, [request], work=copy.deepcopy(before))
