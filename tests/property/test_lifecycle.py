"""The lifecycle table is closed: every verb leads from a state that may last to a state that may last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.lifecycle import VERBS, check_allowed, rule
from core.errors import Conflict, Unsupported
from core.states import InstanceState, Verb

LASTING = {
    InstanceState.PENDING, InstanceState.RUNNING, InstanceState.OFF, InstanceState.HELD, InstanceState.FAILED,
    InstanceState.DELETED,
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_ends_may_last_and_the_way_there_may_not(verb: Verb) -> None:
    found = rule(verb)
    assert {found.done, found.failed} <= LASTING
    during = {found.during, *(step.during for step in found.steps if step.during)}
    assert not during & LASTING
    assert found.steps


@pytest.mark.parametrize("verb", VERBS)
def test_steps_are_named_once_and_are_undone_by_steps_that_are_known(verb: Verb) -> None:
    names = [step.name for step in rule(verb).steps]
    assert len(set(names)) == len(names)
    known = {step.name for other in VERBS.values() for step in other.steps}
    assert {step.compensation for step in rule(verb).steps} - {""} <= known


def test_a_deploy_is_undone_by_what_a_delete_does() -> None:
    undone = [step.compensation for step in reversed(rule(Verb.DEPLOY).steps) if step.compensation]
    assert undone == [step.name for step in rule(Verb.DELETE).steps]


def test_every_state_that_may_last_can_be_left_by_delete_and_deleted_never() -> None:
    for state in InstanceState:
        leaving = {verb for verb, found in VERBS.items() if state in found.allowed_from}
        assert (Verb.DELETE in leaving) == (state is not InstanceState.DELETED)
    assert not any(InstanceState.DELETED in found.allowed_from for found in VERBS.values())


@given(st.lists(st.tuples(st.sampled_from(list(VERBS)), st.booleans()), max_size=30))
def test_no_sequence_of_verbs_leads_out_of_the_table(asked: list[tuple[Verb, bool]]) -> None:
    state = InstanceState.PENDING
    for verb, succeeds in asked:
        found = rule(verb)
        if state not in found.allowed_from:
            with pytest.raises(Conflict):
                check_allowed(verb, state, "web")
            continue
        check_allowed(verb, state, "web")
        state = found.done if succeeds else found.failed
        assert state in LASTING


def test_other_verbs_are_not_of_instances() -> None:
    with pytest.raises(Unsupported):
        rule(Verb.ENROLL)
