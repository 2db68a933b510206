"""Start, stop, delete: who may, when, and what a busy subject answers."""

from __future__ import annotations

from typing import Any

import pytest

from control import access, instances, operations
from core.errors import Conflict, Denied, Invalid, NotFound
from core.states import InstanceState, OperationState, Verb
from tests.rig import Rig


def change(cloud: Rig, verb: Verb, *names: str, **more: Any) -> Any:
    return cloud.submit(verb, {"instances": list(names), **more})


def test_one_may_name_or_give_the_id_and_each_is_meant_once(cloud: Rig) -> None:
    one, _ = cloud.deploy("a", "b")
    accepted = change(cloud, Verb.SHUTDOWN, "a", one, "b")
    assert [op.subject_name for op in accepted.operations] == ["a", "b"]


def test_parameters_reach_the_operation(cloud: Rig) -> None:
    cloud.deploy("a")
    (op,) = change(cloud, Verb.SHUTDOWN, "a", grace_s=5).operations
    assert op.parameters == {"grace_s": 5.0, "was": InstanceState.RUNNING}


@pytest.mark.parametrize("grace", [-1, "soon", True, 1e9])
def test_a_grace_that_is_no_time_is_refused(cloud: Rig, grace: Any) -> None:
    cloud.deploy("a")
    with pytest.raises(Invalid, match="grace_s"):
        change(cloud, Verb.SHUTDOWN, "a", grace_s=grace)


def test_all_unknown_names_are_told(cloud: Rig) -> None:
    cloud.deploy("a")
    with pytest.raises(NotFound) as refused:
        change(cloud, Verb.SHUTDOWN, "x", "a", "y")
    assert refused.value.evidence == {"missing": ["x", "y"]}
    with pytest.raises(Invalid):
        change(cloud, Verb.SHUTDOWN)


@pytest.mark.parametrize(
    ("state", "verb", "allowed"),
    [
        (InstanceState.OFF, Verb.START, True), (InstanceState.FAILED, Verb.START, False),
        (InstanceState.HELD, Verb.SHUTDOWN, True), (InstanceState.PENDING, Verb.SHUTDOWN, False),
        (InstanceState.FAILED, Verb.DELETE, True), (InstanceState.HELD, Verb.DELETE, True),
    ],
)  # fmt: skip
def test_the_table_decides(cloud: Rig, state: InstanceState, verb: Verb, allowed: bool) -> None:
    cloud.ask("a")
    cloud.end(cloud.claim(), state, OperationState.FAILED)
    if allowed:
        assert change(cloud, verb, "a").operations
    else:
        with pytest.raises(Conflict, match=f"is {state}"):
            change(cloud, verb, "a")


def test_users_see_and_change_only_what_is_theirs(cloud: Rig) -> None:
    eve = cloud.user("eve")
    cloud.deploy("a")
    cloud.deploy("mine", by=eve)
    with pytest.raises(NotFound):
        cloud.submit(Verb.DELETE, {"instances": ["a"]}, by=eve)
    assert cloud.submit(Verb.SHUTDOWN, {"instances": ["mine"]}, by=eve).operations
    assert [i["name"] for i in cloud.run(lambda c: instances.list_(c, eve))] == ["mine"]
    assert {op["name"] for op in cloud.run(lambda c: operations.list_(c, eve))} == {"mine"}
    with pytest.raises(NotFound):
        cloud.run(lambda c: instances.show(c, eve, "a"))


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        (Verb.ENROLL, {"hosts": [{"name": "x", "address": "10.2.2.2"}]}),
        (Verb.RETIRE, {"hosts": ["h1"]}),
        (Verb.IMPORT, {"images": [{"name": "x", "source": "/x"}]}),
        (Verb.STAGE, {"image": "tiny"}),
        (Verb.REMOVE, {"images": ["tiny"]}),
        (Verb.RECONCILE, {}),
    ],
)
def test_what_is_the_clouds_is_not_for_users(cloud: Rig, verb: Verb, body: dict[str, Any]) -> None:
    with pytest.raises(Denied, match="may not"):
        cloud.submit(verb, body, by=cloud.user("eve"))
    assert cloud.submit(verb, body).operations
    prefect = cloud.run(lambda c: access.find(c, "prefect"))
    assert prefect.role == access.OPERATOR


def test_a_second_reconcile_is_the_first(cloud: Rig) -> None:
    first = cloud.submit(Verb.RECONCILE, {"hosts": ["h1"]})
    second = cloud.submit(Verb.RECONCILE, {})
    assert (second.repeated, second.request_id) == (True, first.request_id)
    (op,) = cloud.claim()
    cloud.run(lambda c: operations.finish(c, op, OperationState.DONE))
    third = cloud.submit(Verb.RECONCILE, {})
    assert third.operations[0].id != op.id
    with pytest.raises(NotFound):
        cloud.submit(Verb.RECONCILE, {"hosts": ["h9"]})
