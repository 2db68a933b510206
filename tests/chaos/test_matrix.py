"""A sample of the matrix: each pair of verb and fault once, and more by a seed. All of it: scripts/chaos."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from control.lifecycle import LASTING, VERBS
from core.errors import Unsupported
from core.states import InstanceKind, InstanceState, Verb
from tests.chaos.__main__ import arguments, orders, sampled
from tests.chaos.faults import Fault
from tests.chaos.matrix import Case, Matrix
from tests.chaos.scenarios import Scenario, all_scenarios

SEED = 1
BUDGET_S = 40.0


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with Matrix() as found:
        yield found


@pytest.fixture(scope="module")
def cases(matrix: Matrix) -> list[Case]:
    """The cases of one scenario for each verb and state, by turns of another kind and datastore."""
    by_start: dict[tuple[str, str], list[int]] = {}
    scenarios = list(all_scenarios())
    for number, one in enumerate(scenarios):
        by_start.setdefault((one.verb, one.state), []).append(number)
    chosen = [scenarios[group[number % len(group)]] for number, group in enumerate(by_start.values())]
    return [case for one in chosen for case in matrix.cases(one)]


def test_every_verb_from_every_state_is_among_them() -> None:
    there = {(one.verb, one.state) for one in all_scenarios()}
    assert there == {(verb, state) for verb, rule in VERBS.items() for state in rule.allowed_from & LASTING}


def test_every_step_of_the_table_is_passed(cases: list[Case]) -> None:
    passed = {(case.scenario.verb, case.point.step) for case in cases}
    wanted = {(verb, step.name) for verb, rule in VERBS.items() for step in rule.steps}
    assert wanted - passed == set()


def test_each_fault_once_for_each_verb_and_more(matrix: Matrix, cases: list[Case]) -> None:
    chosen = sampled(cases, SEED, len(cases))
    pairs = {(case.scenario.verb, case.fault) for case in cases}
    assert {fault for _, fault in pairs} == set(Fault)
    assert {verb for verb, _ in pairs} == set(VERBS) <= set(Verb)
    began, ran = time.monotonic(), 0
    bad = [(one.case, one.ended, one.wrong) for one in matrix.walked() if one.failed]
    for number, case in enumerate(chosen):
        if number >= len(pairs) and time.monotonic() - began > BUDGET_S:
            break
        outcome = matrix.run(case)
        ran += 1
        if outcome.failed:
            bad.append((outcome.case, outcome.ended, outcome.wrong))
    assert ran >= len(pairs)
    assert bad == []


def test_a_container_is_not_made_anew_elsewhere_when_its_host_is_dead(matrix: Matrix) -> None:
    """Its disks are gone with the host, whatever its datastore: a new one would pass for it."""
    with pytest.raises(Unsupported, match="its disks are on f0 only"):
        matrix.try_(Scenario(Verb.FAILOVER, InstanceState.RUNNING, InstanceKind.CONTAINER, shared=True))


@pytest.mark.parametrize("name", [
    # what was unparked into LXD's pool on the first host stayed there when it went to another one
    "redeploy/undeployed/container/shared unpark:hypervisor.carrier.write after#1 DAEMON",
])  # fmt: skip
def test_what_went_wrong_once(matrix: Matrix, name: str) -> None:
    (scenario,) = (one for one in all_scenarios() if one.name == name.split(" ")[0])
    (case,) = (case for case in matrix.cases(scenario) if case.name == name)
    assert matrix.run(case).wrong == {}


@pytest.mark.parametrize("argv", [["--interleavings", "0"], ["--interleavings", "9", "--shard", "2/10"]])
def test_a_shard_may_have_no_orders_of_events(argv: list[str]) -> None:
    assert orders(arguments(argv)) == {}
