"""The lifecycle table is closed, and no verb takes the last copy of anything away before another was verified."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control import lifecycle
from control.lifecycle import LASTING, PASSING, VERBS, WORDS, NoReturn, check_allowed, meant, no_return, rule
from core.errors import Conflict, Unsupported
from core.states import InstanceState as S
from core.states import StepState, Verb
from drivers.hypervisor.base import Capabilities
from tasks.actions import ACTIONS, DEADLINES_S, OWED, PROBES, REREAD
from tasks.lifecycle import BATCHED

# What takes data away, and the steps of which one must have come before: it verified that the data is elsewhere, or
# let the record do without them. Where none is named, it is what the verb is asked for.
TAKES_AWAY: dict[str, set[str]] = {
    "clear": {"park"},
    "clear-source": {"carry", "transfer"},
    "drop-parked": {"restore", "start"},
    "drop-volume": {"record"},
    "drop-before": {"start-again"},
    "prune": {"fetch-backup"},
    "drop-snapshot": set(),
    "revert": set(),
    "delete-volumes": set(),
}
WHAT_IS_ASKED = {"drop-snapshot": Verb.DROP_SNAPSHOT, "revert": Verb.REVERT, "delete-volumes": Verb.DELETE}


def during(verb: Verb) -> set[S]:
    found = rule(verb)
    return {state for state in (found.during, *(step.during for step in found.steps)) if state is not None}


@pytest.mark.parametrize("verb", VERBS)
def test_ends_may_last_and_the_way_there_may_not(verb: Verb) -> None:
    found = rule(verb)
    assert found.steps
    assert found.allowed_from & LASTING
    assert {found.done, found.failed} - {None} <= LASTING
    assert during(verb) <= PASSING
    for before in found.allowed_from & LASTING:
        assert {lifecycle.state_after(verb, before, well=well) for well in (True, False)} <= LASTING


def test_every_passing_state_is_passed_by_some_verb() -> None:
    assert set().union(*(during(verb) for verb in VERBS)) == PASSING
    assert set(S) == PASSING | LASTING


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb is not Verb.DELETE])
def test_only_delete_may_be_asked_for_while_another_verb_is_under_way(verb: Verb) -> None:
    assert not rule(verb).allowed_from & PASSING


@pytest.mark.parametrize("verb", VERBS)
def test_steps_are_named_once_and_all_are_done_and_undone_by_an_action(verb: Verb) -> None:
    steps = rule(verb).steps
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    assert {*names, *(step.compensation for step in steps)} - {"", BATCHED} <= set(ACTIONS)


def test_there_is_no_action_for_nothing() -> None:
    steps = [step for found in VERBS.values() for step in found.steps]
    named = {step.name for step in steps} | {step.compensation for step in steps} - {""}
    assert set(ACTIONS) == named - {BATCHED}
    assert {step.compensation for step in steps} >= OWED
    assert set(PROBES) | set(DEADLINES_S) | REREAD <= named


@pytest.mark.parametrize("verb", VERBS)
def test_a_capability_that_is_needed_is_one_of_drivers(verb: Verb) -> None:
    assert rule(verb).needs in {"", *(field.name for field in fields(Capabilities) if field.type == "bool")}


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_taken_away_before_another_copy_was_verified(verb: Verb) -> None:
    names = [step.name for step in rule(verb).steps]
    for place, name in enumerate(names):
        if name in TAKES_AWAY and verb is not Verb.DELETE and WHAT_IS_ASKED.get(name) is not verb:
            assert TAKES_AWAY[name] & set(names[:place]), name


@pytest.mark.parametrize("verb", VERBS)
def test_what_takes_away_is_never_followed_by_a_compensation(verb: Verb) -> None:
    """When it has begun, and all before it is done, there is no way back: or the other copy would be undone, too."""
    steps = rule(verb).steps
    for place, step in enumerate(steps):
        if step.name not in TAKES_AWAY:
            continue
        states = dict.fromkeys([one.name for one in steps[:place]], StepState.DONE)
        for begun in (StepState.RUNNING, StepState.FAILED, StepState.DONE):
            assert no_return(verb, {**states, step.name: begun}), step.name
        assert not step.compensation
    if verb is Verb.DELETE:
        assert steps[0].no_return is NoReturn.BEGUN


@pytest.mark.parametrize("verb", VERBS)
def test_before_its_point_of_no_return_a_verb_can_be_undone(verb: Verb) -> None:
    states: dict[str, StepState] = {}
    for step in rule(verb).steps:
        if step.no_return is NoReturn.BEGUN:
            break
        assert no_return(verb, {**states, step.name: StepState.FAILED}) is None
        if step.no_return is NoReturn.DONE:
            break
        states[step.name] = StepState.DONE


def test_a_deploy_is_undone_by_steps_that_a_delete_has() -> None:
    undone = [step.compensation for step in reversed(rule(Verb.DEPLOY).steps) if step.compensation]
    assert undone == ["poweroff", "undefine", "delete-volumes", "release"]
    delete = [step.name for step in rule(Verb.DELETE).steps]
    assert delete == ["stop", "undefine", "delete-volumes", "drop-parked", "release"]


def test_every_state_can_be_left_by_delete_and_deleted_never() -> None:
    for state in S:
        leaving = {verb for verb, found in VERBS.items() if state in found.allowed_from}
        assert (Verb.DELETE in leaving) == (state is not S.DELETED)
    assert not any(S.DELETED in found.allowed_from for found in VERBS.values())


def test_what_is_parked_comes_back_and_runs_again() -> None:
    for away, back in ((Verb.STOP, Verb.RESTORE), (Verb.UNDEPLOY, Verb.REDEPLOY)):
        parked = rule(away).done
        assert parked in rule(back).allowed_from
        assert (rule(back).done, rule(back).failed) == (S.RUNNING, parked)


@pytest.mark.parametrize("word", WORDS)
def test_a_word_means_a_verb_that_is_possible(word: str) -> None:
    for state in S:
        if state in WORDS[word]:
            check_allowed(meant(word, state, "web"), state, "web")
        else:
            with pytest.raises(Conflict, match=f"web is {state}: {word} is possible when"):
                meant(word, state, "web")


@given(st.lists(st.tuples(st.sampled_from(list(VERBS)), st.sampled_from(["done", "failed", "held"])), max_size=30))
def test_no_sequence_of_verbs_leads_out_of_the_table(asked: list[tuple[Verb, str]]) -> None:
    state = S.PENDING
    for verb, end in asked:
        if state not in rule(verb).allowed_from:
            with pytest.raises(Conflict):
                check_allowed(verb, state, "web")
            continue
        check_allowed(verb, state, "web")
        state = S.HELD if end == "held" else lifecycle.state_after(verb, state, well=end == "done")
        assert state in LASTING


def test_other_verbs_are_not_of_instances() -> None:
    with pytest.raises(Unsupported):
        rule(Verb.ENROLL)
